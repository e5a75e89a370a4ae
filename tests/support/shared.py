"""What several workers of one run need and none of them changes: made by the first that asks, read by the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from filelock import FileLock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The path that ``make`` has filled, once per run of pytest however many processes it has.

    ``name`` may have several parts; its directory exists when ``make`` is called, the path itself does not.
    """
    base = factory.getbasetemp()
    if base.name.startswith("popen-gw"):  # of a worker; the run's own is above
        base = base.parent
    path = base / "shared" / name
    done = path.with_name(f"{path.name}.done")
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if not done.exists():
            make(path)
            done.touch()
    return path
