"""Limits that a container or a service manager sets on memory and CPU time (Linux cgroups, versions 1 and 2)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNLIMITED = 1 << 60  # version 1 writes "no limit" as a huge number


@dataclass(frozen=True, slots=True)
class Limits:
    """``memory_total`` and ``memory_left`` in bytes, ``cpus`` in cores' worth of time; None where there is no limit."""

    memory_total: int | None = None
    memory_left: int | None = None
    cpus: float | None = None


def read_limits(root: Path) -> Limits:
    """The tightest limits on this process, every ancestor group counted; ``root`` is ``/`` (tests pass a copy)."""
    total: int | None = None
    left: int | None = None
    cpus: float | None = None
    for group in _groups(root, "memory"):
        for limit_file, usage_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit = _number(group / limit_file)
            if limit is None or limit >= _UNLIMITED:
                continue
            used = (_number(group / usage_file) or 0) - _reclaimable(group / "memory.stat")
            room = max(0, limit - max(0, used))
            total = limit if total is None else min(total, limit)
            left = room if left is None else min(left, room)
    for group in _groups(root, "cpu"):
        share = _cpu_share(group)
        if share is not None:
            cpus = share if cpus is None else min(cpus, share)
    return Limits(total, left, cpus)


def available_memory(root: Path | None = None) -> int:
    """Bytes that this process can still allocate: what the machine has left, or less where a group is limited."""
    import psutil

    left = read_limits(root or Path("/")).memory_left
    available: int = psutil.virtual_memory().available
    return available if left is None else min(available, left)


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Directories of the groups that this process is in, from the innermost to the hierarchy's top."""
    mount = root / "sys/fs/cgroup"
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            top = mount
        elif controller in controllers.split(","):
            top = next((top for top in (mount / controllers, mount / controller) if top.is_dir()), mount / controller)
        else:
            continue
        directory = top / path.strip("/")
        while True:
            yield directory  # a path of the host may not exist inside a container; its top does
            if directory == top or top not in directory.parents:
                break
            directory = directory.parent


def _cpu_share(group: Path) -> float | None:
    fields = _text(group / "cpu.max").split()
    if len(fields) == 2 and fields[0].isdigit() and fields[1].isdigit() and int(fields[1]):
        return int(fields[0]) / int(fields[1])
    quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
    return quota / period if quota and period and quota > 0 else None


def _reclaimable(stat: Path) -> int:
    """Page cache that counts as used but gives way when memory is wanted."""
    for line in _text(stat).splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file") and value.isdigit():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
