"""How long kernels take on this machine: measured once, kept in the user's cache, read by whoever predicts.

One file per machine: processor, threads and onnxruntime's version decide whose timings these are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

from edgedistill.atomic_file import write_whole
from edgedistill.catalog.builtin import cache_dir

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

VERSION = 2


@dataclass(frozen=True, slots=True)
class Machine:
    """What timings depend on."""

    cpu: str
    cores: int
    threads: int
    onnxruntime: str

    @staticmethod
    def here(threads: int = 0) -> Machine:
        """This machine with ``threads`` threads (0: one per physical core, and never more than those)."""
        from edgedistill.system.hardware import detect

        hardware = detect(probe=False)
        cores = hardware.physical_cores
        return Machine(hardware.cpu, cores, min(threads or cores, cores), metadata.version("onnxruntime"))

    @property
    def key(self) -> str:
        """Name of the file that holds its timings."""
        return hashlib.sha256(json.dumps([VERSION, asdict(self)]).encode()).hexdigest()[:24]


@dataclass(slots=True)
class Timings:
    """Seconds by case (see ``speed``), and the memory's read bandwidth in 10^9 bytes per second.

    Attributes:
        machine: Whose timings they are.
        seconds: By case.
        bandwidth_gbs: None: not measured.
        over: Bytes of weights that a timing went through, by case, where there was no room for those it asks for: more
            of them may have come from the processor's cache than will in the model.
    """

    machine: Machine
    seconds: dict[str, float] = field(default_factory=dict)
    bandwidth_gbs: float | None = None
    over: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, machine: Machine) -> Timings:
        """What was measured on ``machine`` before; empty if nothing was, or the file is damaged."""
        found = cls(machine)
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            stored: dict[str, Any] = json.loads(path_of(machine).read_text(encoding="utf-8"))
            if stored.get("version") == VERSION and stored.get("machine") == asdict(machine):
                values = {str(key): float(value) for key, value in stored["seconds"].items()}
                found.seconds = {key: value for key, value in values.items() if math.isfinite(value) and value > 0}
                over = stored.get("over", {}).items()
                found.over = {str(key): int(value) for key, value in over if str(key) in found.seconds}
                bandwidth = stored.get("bandwidth_gbs")
                found.bandwidth_gbs = float(bandwidth) if isinstance(bandwidth, int | float) and bandwidth > 0 else None
        return found

    def least_over(self, keys: Iterable[str]) -> int | None:
        """The fewest bytes of weights among these cases that asked for more; None: all had what they asked for."""
        return min((self.over[key] for key in keys if key in self.over), default=None)

    def save(self) -> None:
        """Write them to the cache by one rename; a cache that cannot be written is no error."""
        path = path_of(self.machine)
        content = {"version": VERSION, "machine": asdict(self.machine), "bandwidth_gbs": self.bandwidth_gbs}
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            content |= {"seconds": self.seconds, "over": self.over}
            write_whole(path, json.dumps(content, indent=1))


def path_of(machine: Machine) -> Path:
    """Where the timings of ``machine`` lie."""
    return cache_dir() / "timings" / f"{machine.key}.json"
