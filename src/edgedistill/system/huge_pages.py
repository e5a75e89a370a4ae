"""Asks Linux to keep the loaded weights in huge pages. A decode step reads all weights; fewer, larger pages mean fewer
misses of the address translation, and a speed that depends less on where the weights were placed.

ONNX Runtime prepacks weights into ordinary heap memory of 4 KiB pages. After loading, the large regions that are
filled are advised (MADV_HUGEPAGE) and collapsed (MADV_COLLAPSE, Linux 6.1; older kernels do it in the background).
Contents and addresses stay as they are, so nothing can break; where the system does not offer it, nothing happens.
Every page is copied, which takes as long as loading or longer; so it is done piece by piece while the model answers.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HUGE_PAGE = 2 << 20
# Regions that are mostly untouched (stacks, reserved arenas) would only grow.
MIN_FILLED = 0.9
LEAST = 8 << 20
"""Bytes of a model below which nothing is done: a processor remembers the places of 1,500 to 3,000 pages of 4 KiB. To
look for regions takes 20 ms in a process with PyTorch, and to move its whole heap half a second.
"""
_PIECE = 8 * HUGE_PAGE
_MADV_HUGEPAGE = 14
_MADV_COLLAPSE = 25
_HEADER = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ (\d+)\s*(.*)$")


def use_huge_pages_in_background(size: int) -> None:
    """``use_huge_pages`` for a model of ``size`` bytes (``LEAST`` or more) in a thread that takes at most half of a
    core's time; where none can start, nothing.
    """
    if sys.platform == "linux" and size >= LEAST:
        with contextlib.suppress(RuntimeError, MemoryError):
            # A program that ends does not wait for it.
            threading.Thread(target=use_huge_pages, kwargs={"gently": True}, name="huge pages", daemon=True).start()


def use_huge_pages(*, gently: bool = False) -> int:
    """Advise this process's large, filled, anonymous regions; returns their bytes (0 where it is not possible).

    Args:
        gently: Rest after every piece for as long as it took.
    """
    if sys.platform != "linux":
        return 0
    try:
        regions = list(filled_regions(Path("/proc/self/smaps").read_text(encoding="ascii", errors="replace")))
        madvise = ctypes.CDLL(None, use_errno=True).madvise
    except (OSError, AttributeError):
        return 0
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    total = 0
    for first, last in regions:
        for start in range(first, last, _PIECE):
            size = min(_PIECE, last - start)
            begun = time.perf_counter()
            if madvise(start, size, _MADV_HUGEPAGE) == 0:
                madvise(start, size, _MADV_COLLAPSE)
                total += size
            if gently:
                time.sleep(time.perf_counter() - begun)
    return total


def filled_regions(smaps: str) -> Iterator[tuple[int, int]]:
    """Address ranges of whole huge pages in private, writable memory without a file that is in use throughout.

    Args:
        smaps: Text of /proc/PID/smaps (see proc(5)).
    """
    start = stop = 0
    for line in smaps.splitlines():
        header = _HEADER.match(line)
        if header:
            low, high, flags, inode, name = header.groups()
            candidate = flags.startswith("rw") and flags.endswith("p") and inode == "0" and name in ("", "[heap]")
            start, stop = (int(low, 16), int(high, 16)) if candidate else (0, 0)
        elif line.startswith("Rss:") and int(line.split()[1]) * 1024 >= MIN_FILLED * (stop - start):
            first, last = -(-start // HUGE_PAGE) * HUGE_PAGE, stop // HUGE_PAGE * HUGE_PAGE
            if last > first:
                yield first, last
