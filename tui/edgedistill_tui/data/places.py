"""Where the UI keeps its files."""

from __future__ import annotations

import os
from pathlib import Path

DATA_VARIABLE = "EDGEDISTILL_DATA"


def data_dir() -> Path:
    """Sessions, known bundles and the default bundle: ``$EDGEDISTILL_DATA`` or the user's data directory."""
    if chosen := os.environ.get(DATA_VARIABLE):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("edgedistill", appauthor=False))


def config_file() -> Path:
    """The settings file: in ``$EDGEDISTILL_DATA`` where that is set, else in the user's configuration directory."""
    if os.environ.get(DATA_VARIABLE):
        return data_dir() / "tui.toml"
    import platformdirs

    return Path(platformdirs.user_config_dir("edgedistill", appauthor=False)) / "tui.toml"


def free_name(directory: Path, stem: str, suffix: str) -> Path:
    """A path in ``directory`` that does not exist yet: ``stem.suffix``, ``stem-2.suffix``, ..."""
    path, number = directory / f"{stem}{suffix}", 1
    while path.exists():
        number += 1
        path = directory / f"{stem}-{number}{suffix}"
    return path
