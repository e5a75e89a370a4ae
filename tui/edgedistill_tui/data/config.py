"""Directories of the UI's files, and its settings: theme, frames per second, keys, directory of exports.

The settings are a small TOML file that users may edit.
"""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edgedistill.atomic_file import write_whole
from edgedistill.errors import EdgedistillError
from edgedistill.schema import Form, limits

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


CLIPBOARDS = ("auto", "terminal", "file")
DEFAULT_THEME = "edgedistill"


class ConfigError(EdgedistillError):
    """A settings file that cannot be read or written."""


FORM = Form(ConfigError, hint="Correct or remove the line.", strict=True, max_bytes=1 << 20)


@dataclass(slots=True)
class Config:
    """Settings with their defaults.

    Attributes:
        theme: Name of a Textual theme; ``ansi-dark`` and ``ansi-light`` take the terminal's own colours.
        frames_per_s: Largest number of frames per second while text arrives; 0: 15, or 5 over SSH.
        unfold_reasoning: Show reasoning unfolded.
        export_dir: Where exports and copies go; empty: the current directory.
        clipboard: ``auto``, ``terminal`` (OSC 52) or ``file``.
        keys: Keys by the id of their binding, for those that the user changed.
    """

    theme: str = DEFAULT_THEME
    frames_per_s: float = field(default=0.0, metadata=limits(low=0, high=240))
    unfold_reasoning: bool = False
    export_dir: str = ""
    clipboard: str = field(default="auto", metadata=limits(choices=CLIPBOARDS))
    keys: dict[str, str] = field(default_factory=dict)
    path: Path | None = field(default=None, init=False)

    @property
    def exports(self) -> Path:
        """The directory for exports."""
        return Path(self.export_dir).expanduser() if self.export_dir else Path.cwd()

    @classmethod
    def load(cls, path: Path) -> Config:
        """Read ``path``; defaults if it does not exist. Raises ConfigError for invalid content."""
        try:
            values = tomllib.loads(FORM.read_text(path))
        except FileNotFoundError:
            values = {}
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: {error}.", hint="Correct or remove the file.") from error
        config = FORM.decode(cls, values, str(path))
        config.path = path
        return config

    def save(self) -> None:
        """Write the file; raises ConfigError."""
        if self.path is None:
            return
        lines = [f"{f.name} = {_toml(getattr(self, f.name))}" for f in fields(self) if f.name not in ("path", "keys")]
        lines += ["", "[keys]", *(f"{_toml(name)} = {_toml(key)}" for name, key in sorted(self.keys.items()))]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, "\n".join(lines) + "\n")
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror or error}.", hint="The settings hold for now.") from error


def _toml(value: Any) -> str:
    """A string, number or boolean: JSON's form of them is also TOML's."""
    return json.dumps(value)
