"""The part of spread sampling that runs on a worker: what it is, which bundles it has, drawing a unit of work.

A bundle is known by its identity. A worker looks for it where the client has it (a shared or the same
disk), where the user says, and among what was sent to it earlier; every file's SHA-256 is compared before it is used.
"""

from __future__ import annotations

import os
import shutil
import socket
import threading
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bundle.bundle import MANIFEST, Bundle
from edgedistill.catalog.builtin import cache_dir
from edgedistill.errors import BundleError, EdgedistillError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.runtime.batch.request import DrawSettings
    from edgedistill.verify.models.bundle import BundleModel
    from edgedistill.verify.sampling.protocol import Missing
    from edgedistill.verify.types import Drawn

VERSIONED = ("edgedistill", "onnxruntime", "numpy")
"""What has to be of the same version everywhere, because samples depend on it."""

SAME_VERSIONS = "Install the versions of this machine there, in an environment of their own."

_DRAWING = threading.Lock()  # a worker with several threads still has the cores for one unit at a time


@dataclass(frozen=True, slots=True)
class Unit:
    """Work for one worker: some samples of some prompts."""

    missing: tuple[Missing, ...]

    @property
    def size(self) -> int:
        """Samples to draw."""
        return sum(len(indices) for _, indices in self.missing)


@dataclass(frozen=True, slots=True)
class Place:
    """Which bundle: its key, where it may lie on a worker, and the versions that it is to be run with."""

    key: str
    paths: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A unit that was not drawn: ``missing`` where the worker has no such bundle, else an error of the user's kind."""

    host: str
    missing: bool = False
    message: str = ""
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """What a worker is."""

    host: str
    device: str
    details: dict[str, str]
    versions: dict[str, str]


def survey() -> Survey:
    """This machine."""
    from edgedistill.system.hardware import detect

    hardware = detect(probe=False)
    name = f"{hardware.cpu} ({' '.join(hardware.isa) or hardware.machine})"
    return Survey(socket.gethostname(), name, hardware.details, versions())


def versions() -> dict[str, str]:
    """Versions of what samples depend on."""
    found: dict[str, str] = {}
    for package in VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def different(there: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """What of the versions differs, as the end of a sentence; None for the same."""
    for package, own in here.items():
        if there.get(package) != own:
            return f"has {package} {there.get(package)}, this machine {own}; samples depend on it."
    return None


@lru_cache(maxsize=8)
def _found(path: str, key: str, changed: float) -> bool:  # noqa: ARG001  # hashed once as long as the manifest stays
    try:
        return Bundle.open(path, check="full").identity() == key
    except (BundleError, OSError):
        return False


def locate(place: Place) -> str | None:
    """Where the bundle lies on this machine, its hashes compared; None if it is not there."""
    for path in (*place.paths, str(_received(place.key))):
        try:
            changed = (Path(path) / MANIFEST).stat().st_mtime
        except OSError:
            continue
        if _found(path, place.key, changed):
            return path
    return None


def receive(key: str, sender: str, name: str, offset: int, data: bytes) -> None:
    """Keep a piece of a file of the bundle ``key``; pieces of a file come in order.

    Raises:
        BundleError: A name that leads out of the directory.
        OSError: The disk is full or read-only.
    """
    directory = _arriving(key, sender)
    if Path(name).name != name or name in (".", ".."):
        raise BundleError(f"{name!r} is not the name of a file in a bundle.")
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / name).open("r+b" if offset else "wb") as stream:
        stream.seek(offset)
        stream.write(data)


def received(key: str, sender: str) -> None:
    """All files are here: check them and give the directory its name.

    Raises:
        BundleError: It is not the bundle that was to come.
    """
    directory, final = _arriving(key, sender), _received(key)
    try:
        if Bundle.open(directory, check="full").identity() != key:
            raise BundleError("The bundle that arrived differs from the one that was sent.")
        if not final.exists():
            directory.rename(final)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _received(key: str) -> Path:
    return cache_dir() / "bundles" / key[:32]


def _arriving(key: str, sender: str) -> Path:
    return cache_dir() / "bundles" / f".{key[:32]}.{sender[:32]}.{os.getpid()}"


@lru_cache(maxsize=2)  # a bundle and its reference
def _opened(path: str, key: str) -> BundleModel:  # noqa: ARG001  # another bundle may come to lie there
    from edgedistill.verify.models.bundle import open_sampled

    return open_sampled(path, check="size")  # ``locate`` compared the hashes


def draw_unit(place: Place, settings: DrawSettings, unit: Unit) -> list[Drawn] | Refusal:
    """The samples of a unit, or why there are none."""
    host = socket.gethostname()
    with _DRAWING:
        try:
            if (wrong := different(versions(), dict(place.versions))) is not None:
                return Refusal(host, message=f"it {wrong}", hint=SAME_VERSIONS)
            path = locate(place)
            if path is None:
                return Refusal(host, missing=True)
            model = _opened(path, place.key)
            return list(model.draw_missing(unit.missing, settings))
        except EdgedistillError as error:
            return Refusal(host, message=error.message, hint=error.hint)
        except MemoryError:
            return Refusal(host, message="out of memory", hint="Start fewer workers on that machine.")
