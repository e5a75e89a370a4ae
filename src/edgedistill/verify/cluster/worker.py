"""Functions that run on a worker of the cluster: describe the machine, find or receive a bundle, draw a unit of work.

A bundle is identified by a hash. A worker looks for it at the path that the client has (for shared disks), at the path
that the user gave, and among bundles that were sent to it earlier. Every file's SHA-256 is compared before it is used.
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
"""Packages whose versions have to be the same on all machines, because samples depend on them."""

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
    """A bundle's key, the paths where a worker may find it, and the package versions that it has to be run with."""

    key: str
    paths: tuple[str, ...]
    versions: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A unit that was not drawn: ``missing`` if the worker lacks the bundle, else the message and hint of an error."""

    host: str
    missing: bool = False
    message: str = ""
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Survey:
    """Description of a machine: host name, name of the kind of device, its details, package versions."""

    host: str
    device: str
    details: dict[str, str]
    versions: dict[str, str]


def survey() -> Survey:
    """Describe this machine."""
    from edgedistill.system.hardware import detect

    hardware = detect(probe=False)
    name = f"{hardware.cpu} ({' '.join(hardware.isa) or hardware.machine})"
    return Survey(socket.gethostname(), name, hardware.details, versions())


def versions() -> dict[str, str]:
    """Versions of the packages in ``VERSIONED``."""
    found: dict[str, str] = {}
    for package in VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def different(there: Mapping[str, str], here: Mapping[str, str]) -> str | None:
    """The first difference of the versions, as the end of a sentence; None if they are the same."""
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
    """Path of the bundle on this machine, with its hashes compared; None if it is not there."""
    for path in (*place.paths, str(_received(place.key))):
        try:
            changed = (Path(path) / MANIFEST).stat().st_mtime
        except OSError:
            continue
        if _found(path, place.key, changed):
            return path
    return None


def receive(key: str, sender: str, name: str, offset: int, data: bytes) -> None:
    """Store a piece of a file of the bundle ``key``; pieces of a file come in order.

    Raises:
        BundleError: A name that is not a plain file name.
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
    """Check a bundle whose files have all arrived, and move it to its final path.

    Raises:
        BundleError: It is not the bundle ``key``.
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
def _opened(path: str, key: str) -> BundleModel:  # noqa: ARG001  # the bundle at a path may be replaced
    from edgedistill.verify.models.bundle import open_sampled

    return open_sampled(path, check="size")  # ``locate`` compared the hashes


def draw_unit(place: Place, settings: DrawSettings, unit: Unit) -> list[Drawn] | Refusal:
    """Draw the samples of a unit; a Refusal if that is impossible."""
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
