"""What this machine has, and which profile fits it."""

from __future__ import annotations

import math
import os
import platform
import shutil
import time
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.json_codec import Record
from edgedistill.system.cgroup import read_limits
from edgedistill.system.processor import family, read_processor

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgedistill.profile.profile import Profile

GB = 10**9
PROBE_SECONDS = 2.0
_MEMORY_TOLERANCE = 0.9  # firmware and graphics keep a share of what is printed on the box


@dataclass(frozen=True, slots=True)
class Hardware(Record):
    """A machine as this process sees it: affinity and container limits are taken off.

    Attributes:
        cpu: Model name as the system tells it.
        machine: Instruction set family, such as ``x86_64`` or ``aarch64``.
        physical_cores: Cores that threads should be started for.
        logical_cores: Hardware threads.
        isa: Detected flags among ``profile.ISA_FLAGS``.
        ram_bytes: Whole memory.
        available_ram_bytes: Memory that can still be allocated without swapping.
        free_disk_bytes: Free space where ``detect`` was told to look.
        bandwidth_gbs: Read bandwidth of memory in 10^9 bytes per second with a thread on every core; None: not probed.
        isa_known: Whether the system tells the instruction sets at all; if not, ``isa`` is empty.
    """

    cpu: str
    machine: str
    physical_cores: int
    logical_cores: int
    isa: tuple[str, ...]
    ram_bytes: int
    available_ram_bytes: int
    free_disk_bytes: int
    bandwidth_gbs: float | None = None
    isa_known: bool = True

    @property
    def details(self) -> dict[str, str]:
        """What reports say of a machine, for people."""
        return {
            "cpu": self.cpu,
            "cores": str(self.physical_cores),
            "isa": " ".join(self.isa) if self.isa_known else "unknown",
            "system": f"{platform.system()} {self.machine}",
        }


@dataclass(frozen=True, slots=True)
class Fit:
    """How well one profile suits a machine: whether it ``fits`` at all, ``reasons`` for people, ``score`` for order."""

    profile: Profile
    fits: bool
    score: float
    reasons: tuple[str, ...]


def detect(*, disk: Path | None = None, probe: bool = True, root: Path = Path("/")) -> Hardware:
    """Look at this machine.

    Args:
        disk: A path on the file system whose free space counts; the current directory by default.
        probe: Measure the memory bandwidth, which takes ``PROBE_SECONDS``.
        root: Where ``proc`` and ``sys`` are.
    """
    import psutil

    limits = read_limits(root)
    memory = psutil.virtual_memory()
    total = memory.total if limits.memory_total is None else min(memory.total, limits.memory_total)
    available = memory.available if limits.memory_left is None else min(memory.available, limits.memory_left)
    logical = psutil.cpu_count(logical=True) or os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or logical
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else logical
    if limits.cpus is not None:
        allowed = min(allowed, max(1, math.ceil(limits.cpus)))
    cores = min(physical, allowed)
    machine = platform.machine().lower()
    processor = read_processor(root, platform.system(), machine)
    return Hardware(
        cpu=processor.name,
        machine=machine,
        physical_cores=cores,
        logical_cores=min(logical, allowed),
        isa=processor.isa or (),
        isa_known=processor.isa is not None,
        ram_bytes=total,
        available_ram_bytes=available,
        free_disk_bytes=shutil.disk_usage(_existing(disk or Path.cwd())).free,
        bandwidth_gbs=memory_bandwidth(cores, available) if probe else None,
    )


def memory_bandwidth(threads: int, available: int, seconds: float = PROBE_SECONDS) -> float | None:
    """Read bandwidth in 10^9 bytes per second; None if there is too little free memory for an honest figure.

    Each thread sums an int64 array of its own again and again; all arrays together are far larger than the last-level
    cache. Bytes read by all threads until the time is up, over that time. Filling the arrays and a first pass are part
    of the time budget but not of the figure. NumPy sums int64 faster than memory delivers it, so memory is what limits.
    """
    import numpy as np

    size = min(256 * 1024 * 1024, available // (4 * threads))
    if size < 32 * 1024 * 1024:
        return None
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier, BrokenBarrierError

    begun = time.perf_counter()
    barrier = Barrier(threads)

    def read(_: int) -> float:
        try:
            array = np.ones(size // 8, np.int64)
        except MemoryError:
            barrier.abort()  # or the others would wait for ever
            raise
        barrier.wait()
        start = time.perf_counter()
        passes = 0
        while passes == 0 or time.perf_counter() - begun < seconds:
            array.sum()
            passes += 1
        return passes * array.nbytes / (time.perf_counter() - start)

    with ThreadPoolExecutor(threads) as pool:
        try:
            return sum(pool.map(read, range(threads))) / GB
        except (MemoryError, BrokenBarrierError):
            return None


def fit(hardware: Hardware, profiles: Iterable[Profile]) -> tuple[Fit, ...]:
    """Profiles, best first.

    Instruction set, whole memory and, where the profile names processors, the machine's name decide whether it fits.
    Where the system does not tell the instruction sets, those of another family are ruled out. Among profiles that fit,
    one that names the machine wins, then the one made for the largest machine, with a deduction for missing cores; at
    equal targets fewer bits win, and float32 references come last.
    """
    ranked = [_fit(hardware, profile) for profile in profiles]
    return tuple(
        sorted(
            ranked,
            key=lambda fit: (
                not fit.fits,
                fit.profile.weights.default.is_float,
                not fit.profile.target.cpu,
                -fit.score,
                fit.profile.weights.default.bits,
                fit.profile.name,
            ),
        )
    )


def _fit(hardware: Hardware, profile: Profile) -> Fit:
    target = profile.target
    reasons: list[str] = []
    wanted = " or ".join(target.isa)
    if hardware.isa_known:
        matching = [flag for flag in target.isa if flag in hardware.isa]
        reasons.append(f"has {matching[0]}" if matching else f"needs {wanted}, which this CPU lacks")
    else:
        matching = [flag for flag in target.isa if flag in family(hardware.machine)]
        told = "which this system does not tell of its CPU" if matching else f"which no {hardware.machine} CPU has"
        reasons.append(f"needs {wanted}, {told}")
    named = not target.cpu or any(fnmatchcase(hardware.cpu.lower(), pattern.lower()) for pattern in target.cpu)
    if target.cpu:
        names = " or ".join(pattern.strip("*") for pattern in target.cpu)
        reasons.append(f"made for {names}" if named else f"made for {names}, which this machine is not")
    whole = hardware.ram_bytes / GB
    enough = whole >= target.machine_ram_gb * _MEMORY_TOLERANCE
    relation = "enough for" if enough else "too little for"
    reasons.append(f"{whole:.1f} GB of memory, {relation} a profile made for {target.machine_ram_gb:g} GB")
    missing = max(0.0, 1 - hardware.physical_cores / target.cores)
    if missing:
        reasons.append(f"{hardware.physical_cores} of the {target.cores} cores it is made for: slower, but it works")
    if hardware.available_ram_bytes < target.ram_gb * GB:
        free = hardware.available_ram_bytes / GB
        reasons.append(f"only {free:.1f} GB of memory are free now; it may use {target.ram_gb:g} GB")
    if hardware.free_disk_bytes < target.disk_gb * GB:
        free = hardware.free_disk_bytes / GB
        reasons.append(f"only {free:.1f} GB of disk are free; its bundles may take {target.disk_gb:g} GB")
    if profile.weights.default.is_float:
        reasons.append("a reference for comparison, not for use")
    reasons.append(f"run on {profile.verified_on}" if profile.tested else "not run on the hardware it describes")
    score = min(1.0, target.machine_ram_gb / whole) - 0.25 * missing
    return Fit(profile, bool(matching) and named and enough, score, tuple(reasons))


def _existing(path: Path) -> Path:
    """The nearest ancestor of ``path`` that exists: an output directory need not exist yet."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
