"""Keeps loaded weights as they were loaded while another program changes their files.

ONNX Runtime maps weights instead of reading them. A file that is deleted, or replaced by another one of its name, stays
there for whoever has it mapped; but one that is truncated loses its pages, and the next step ends the process (SIGBUS),
and one that is overwritten in place makes another model of the loaded one, without a word.

Linux can tell beforehand: with a lease on a file (``F_SETLEASE``, fcntl(2)) the process gets a signal when another one
opens it for writing or truncates it, and that one waits, 45 s at most, until the lease is given back. In that time
``take_over`` copies what is mapped into memory of its own, at the same addresses (mremap(2)), so that running steps
notice nothing. Leases need a local file system and a file of one's own user; elsewhere ``changed`` tells afterwards,
before the next reply.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SIGNAL = getattr(signal, "SIGURG", None)
"""Sent when a lease is asked back; ignored where nobody handles it, unlike the default SIGIO, which ends a process."""

_MAPPED = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+) +(/.*)$")
_PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS, _MREMAP_MAYMOVE_FIXED = 0x3, 0x22, 0x3
_FAILED = ctypes.c_void_p(-1).value


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was when it was loaded; ``handle`` is an open descriptor with a lease on it, -1: no lease."""

    path: Path
    inode: int
    size: int
    changed_ns: int
    handle: int


class MappedFiles:
    """Files whose contents are mapped by this process.

    Args:
        paths: The files; those that cannot be looked at are left out.
        lease: Ask to be told before they change. The caller then handles ``SIGNAL`` by calling ``take_over``.
    """

    def __init__(self, paths: Iterable[Path], *, lease: bool = False) -> None:
        self._files: list[_File] = []
        for path in paths:
            try:
                found = path.stat()
            except OSError:
                continue
            handle = _leased(path) if lease else -1
            self._files.append(_File(path, found.st_ino, found.st_size, found.st_mtime_ns, handle))

    @property
    def leased(self) -> bool:
        """Whether a change of any of the files is told beforehand."""
        return bool(self._files) and all(file.handle >= 0 for file in self._files)

    @property
    def wanted(self) -> bool:
        """Whether another program waits to change one of them."""
        return any(file.handle >= 0 and _lease(file.handle) != _READ for file in self._files)

    def changed(self) -> str | None:
        """What happened to the first file that is another one now under the same pages; None: nothing."""
        for file in self._files:
            try:
                found = file.path.stat()
            except OSError:
                continue
            if found.st_ino != file.inode:
                continue
            if found.st_size != file.size:
                return f"{file.path.name} has {found.st_size} bytes, {file.size} when it was loaded"
            if found.st_mtime_ns != file.changed_ns:
                return f"{file.path.name} was written to since it was loaded"
        return None

    def take_over(self) -> bool:
        """Copy what is mapped of the files into memory and let the others go on; False, and nothing done, where the
        memory does not suffice.
        """
        regions = _regions({file.inode for file in self._files})
        import psutil

        if sum(stop - start for start, stop in regions) > psutil.virtual_memory().available or not _detach(regions):
            return False
        self.close()
        return True

    def close(self) -> None:
        """Give the leases back and watch the files no more."""
        for file in self._files:
            if file.handle >= 0:
                os.close(file.handle)
        self._files = []


try:
    import fcntl
except ImportError:  # Windows
    _has_leases = False
else:
    _has_leases = hasattr(fcntl, "F_SETLEASE")

if sys.platform == "linux" and _has_leases:
    _READ = fcntl.F_RDLCK

    def _leased(path: Path) -> int:
        handle = -1
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.fcntl(handle, fcntl.F_SETSIG, int(SIGNAL or 0))
            fcntl.fcntl(handle, fcntl.F_SETOWN, os.getpid())  # else this thread is told, which may have ended
            fcntl.fcntl(handle, fcntl.F_SETLEASE, _READ)
        except OSError:
            if handle >= 0:
                os.close(handle)
            return -1
        return handle

    def _lease(handle: int) -> int:
        return fcntl.fcntl(handle, fcntl.F_GETLEASE)

else:
    _READ = 0

    def _leased(path: Path) -> int:  # noqa: ARG001 - no leases here
        return -1

    def _lease(handle: int) -> int:  # noqa: ARG001 - no leases here
        return _READ


def _regions(inodes: set[int]) -> list[tuple[int, int]]:
    """Address ranges that are private mappings of the files with these inodes, program code aside."""
    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for line in maps.splitlines():
        entry = _MAPPED.match(line)
        if entry and re.fullmatch("r[w-]-p", entry[3]) and int(entry[4]) in inodes:
            found.append((int(entry[1], 16), int(entry[2], 16)))
    return found


def _detach(regions: Sequence[tuple[int, int]]) -> bool:
    """Put anonymous copies in the place of mapped pages. Each exchange is one system call: no thread sees a gap."""
    if not regions:
        return True
    libc = ctypes.CDLL(None, use_errno=True)
    size, address, number = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_int
    libc.mmap.argtypes, libc.mmap.restype = (address, size, number, number, number, ctypes.c_long), address
    libc.mremap.argtypes, libc.mremap.restype = (address, size, size, number, address), address
    libc.munmap.argtypes = (address, size)
    for start, stop in regions:
        length = stop - start
        copy = libc.mmap(None, length, _PROT_READ_WRITE, _MAP_PRIVATE_ANONYMOUS, -1, 0)
        if copy == _FAILED:
            return False
        ctypes.memmove(copy, start, length)
        if libc.mremap(copy, length, length, _MREMAP_MAYMOVE_FIXED, start) == _FAILED:
            libc.munmap(copy, length)
            return False
    return True
