"""Graphs with weights as ONNX Runtime packed them for this processor, kept in the user's cache and mapped from there.

Packed weights are otherwise private memory: 1.3 to 1.7 times the weights file that they were made of. Mapped, they are
pages of a file, shared by the processes that open the bundle and given back where memory is short. Off by default,
because it costs disk (2.6 times the bundle) and some speed (such pages are seldom huge), and opening takes up to twice
as long as without: ONNX Runtime packs every matrix again, to find the one that was saved by a hash of it.

An entry is made by a load that saves what it packed. It is used for the same bundle, version of ONNX Runtime, processor
and options alone, and only while its files are, by inode, size and times, those that were written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.atomic_file import write_whole
from edgedistill.bundle import own_directory
from edgedistill.bundle.bundle import MODEL, PREFILL_MODEL, Bundle
from edgedistill.bundle.opening_memory import in_planes
from edgedistill.bundle.regular_files import FileState
from edgedistill.catalog.builtin import cache_dir
from edgedistill.errors import BundleError, UsageError
from edgedistill.system.processor import read_processor
from edgedistill.system.temporary import scratch
from edgedistill.units import parse_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.bundle.manifest import Manifest

VARIABLE = "EDGEDISTILL_PACKED_CACHE"
GRAPH, WEIGHTS, RECORD = "graph.onnx", "packed.bin", "entry.json"
_FORM = "edgedistill packed graph 1"
_TIMES_THE_BUNDLE = 3
"""What an entry takes at most, beside the bundle: codes, scales in float32 and packed matrices (2.6 times seen)."""
_PREFIX = ".making-"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry that is there: its directory, and the serialized graph that refers to data in it."""

    folder: Path
    graph: bytes


def default_directory() -> Path:
    """``packed`` in the user's cache directory."""
    return cache_dir() / "packed"


def entries(folder: Path) -> list[tuple[int, int, Path]]:
    """Entries in ``folder``: when each was used last (nanoseconds), its bytes, its directory; least recent first."""
    found = []
    with contextlib.suppress(OSError):
        for place in folder.iterdir():
            if not place.name.startswith(_PREFIX) and own_directory.is_own(place):
                with contextlib.suppress(OSError):
                    size = sum(file.stat().st_size for file in place.iterdir())
                    found.append(((place / RECORD).stat().st_mtime_ns, size, place))
    return sorted(found)


def clear(folder: Path) -> list[tuple[int, int, Path]]:
    """Delete the entries in ``folder``; those that are gone. Processes go on using what they map."""
    found = entries(folder)
    for _, _, place in found:
        shutil.rmtree(place, ignore_errors=True)
    return [entry for entry in found if not entry[2].exists()]


class PackedCache:
    """Entries in a directory, at most ``limit`` bytes of them.

    Args:
        folder: Made when the first entry is.
        limit: The least recently used ones go first.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    @classmethod
    def of_environment(cls) -> PackedCache | None:
        """The user's, where ``EDGEDISTILL_PACKED_CACHE`` gives its size; None otherwise. Raises UsageError."""
        text = os.environ.get(VARIABLE, "").strip()
        if text in ("", "0"):
            return None
        try:
            limit = parse_bytes(text)
        except UsageError as error:
            raise UsageError(
                f"{VARIABLE} is {text!r}, which is not a size.", hint=f"As in {VARIABLE}=20GB; 0 keeps nothing."
            ) from error
        return cls(default_directory(), limit)

    def find(self, key: str) -> Entry | None:
        """The entry of ``key``; None where there is none, or its files are no longer those that were written."""
        folder = self.folder / key
        try:
            if not own_directory.is_own(folder):
                return None
            recorded = json.loads((folder / RECORD).read_bytes())
            graph = (folder / GRAPH).read_bytes()
            if recorded["weights"] != asdict(FileState.of(os.lstat(folder / WEIGHTS))):
                return None
            if recorded["graph"] != hashlib.sha256(graph).hexdigest():
                return None
            os.utime(folder / RECORD)  # used last now
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Entry(folder, graph)

    @contextlib.contextmanager
    def making(self, key: str, bundle: Bundle) -> Iterator[Path | None]:
        """A new directory to save ``GRAPH`` and ``WEIGHTS`` in, an entry once the block ends; None: there is no room.

        The bundle's files are compared with their SHA-256 before, so that no entry is made of others. What goes
        wrong with the cache is no reason to fail: the entry is not made.

        Raises:
            BundleError: The bundle's files are not those that its manifest lists.
        """
        size = _TIMES_THE_BUNDLE * bundle.size
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            room = size <= self.limit and 2 * size <= shutil.disk_usage(self.folder).free
        except OSError:
            room = False
        if not room:
            yield None
            return
        if Bundle.open(bundle.path, check="full").states != bundle.states:
            raise BundleError(f"{bundle.path} was changed while it was opened.")
        with scratch(self.folder, _PREFIX) as place:
            made = place / key
            own_directory.make(made)
            yield made
            with contextlib.suppress(OSError):
                self._keep(made, key)

    def _keep(self, made: Path, key: str) -> None:
        state = asdict(FileState.of(os.lstat(made / WEIGHTS)))
        graph = hashlib.sha256((made / GRAPH).read_bytes()).hexdigest()
        write_whole(made / RECORD, json.dumps({"weights": state, "graph": graph}))
        final = self.folder / key
        if own_directory.is_own(final):  # one that could not be used
            shutil.rmtree(final, ignore_errors=True)
        made.rename(final)
        self._shrink(spare=key)

    def _shrink(self, *, spare: str) -> None:
        """Remove the least recently used entries until the rest fits; processes go on using what they map."""
        found = entries(self.folder)
        total = sum(size for _, size, _ in found)
        for _, size, folder in found:
            if total > self.limit and folder.name != spare:
                shutil.rmtree(folder, ignore_errors=True)
                total -= size


def is_kept(bundle: Bundle) -> bool:
    """Whether opening ``bundle`` as its profile says maps packed weights from the user's cache; raises UsageError."""
    cache, manifest = PackedCache.of_environment(), bundle.manifest
    if cache is None or not bundle.states or manifest.model.signature == "optimum" or _is_widened(manifest):
        return False
    level = str(manifest.profile.get("session", {}).get("graph_optimization_level", "all"))
    forms = [name for name in (MODEL, PREFILL_MODEL) if bundle.has_file(name)]
    return all(cache.find(entry_key(bundle, name, {"level": level})) is not None for name in forms)


def _is_widened(manifest: Manifest) -> bool:
    return any(in_planes(weight.format) for weight in manifest.weights)


def entry_key(bundle: Bundle, name: str, options: dict[str, Any]) -> str:
    """Name of the entry for the graph ``name`` of a bundle, opened with ``options`` by this ONNX Runtime here."""
    import onnxruntime as ort

    processor = read_processor(Path("/"), platform.system(), platform.machine().lower())
    content = {
        "form": _FORM,
        "bundle": bundle.identity(),
        "graph": name,
        "options": options,
        "onnxruntime": ort.__version__,
        "processor": [platform.system(), platform.machine(), processor.name, _flags() or sorted(processor.isa or ())],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _flags() -> str:
    """All instruction sets that Linux names: ONNX Runtime has kernels for more of them than profiles speak of."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    found = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return " ".join(sorted(found.partition(":")[2].split()))
