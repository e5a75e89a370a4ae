"""How many weights a timing uses: as many as its case asks for, or fewer where disk or memory are short.

They lie in a file of the temporary directory, which may itself be memory, and once more in memory as kernels want them.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bundle.opening_memory import in_planes
from edgedistill.errors import BudgetError, OutputError
from edgedistill.estimate.speed import kernel_bytes
from edgedistill.system.cgroup import available_memory
from edgedistill.units import format_bytes

if TYPE_CHECKING:
    from edgedistill.estimate.speed import MatrixCase

MOST_COPIES = 384
LEAST_BYTES = 64 << 20
"""Of what kernels read: fewer may all come from a processor's cache, whatever the model's would: no timing at all."""
_CHUNK_COPIES = 2
_OF_DISK = 0.75
_OF_MEMORY = 0.5
_WITHOUT = "or leave timing out with --no-measure."


@dataclass(frozen=True, slots=True)
class Room:
    """Free bytes of the directory for temporary files, and of memory."""

    folder: Path
    disk: int
    memory: int

    @staticmethod
    def now() -> Room:
        """What is free; raises OutputError where no directory takes temporary files."""
        try:
            folder = Path(tempfile.gettempdir())
            return Room(folder, shutil.disk_usage(folder).free, available_memory())
        except OSError as error:
            raise OutputError(
                f"No directory can hold temporary files: {error.strerror or error}.",
                hint=f"Free some space, name a directory with TMPDIR, {_WITHOUT}",
            ) from error

    def no_disk(self, needed: int | None = None) -> OutputError:
        """The refusal where ``needed`` bytes are not free; None: where they were, but are no more."""
        found = f"The disk of {self.folder} got full while kernels were timed there."
        if needed is not None:
            found = f"Timing kernels takes {format_bytes(needed)} in {self.folder} for a moment; "
            found += f"{format_bytes(self.disk)} are free."
        return OutputError(found, hint=f"Free some space, name another directory with TMPDIR, {_WITHOUT}")


def weight_bytes(case: MatrixCase) -> int:
    """Bytes of one matrix in the file."""
    return sum(weight.nbytes for weight in case.weights("w"))


def memory_bytes(case: MatrixCase) -> int:
    """Memory that one matrix takes at most: the file, which may lie there too, what kernels read, and, of codes in
    planes, what is put together for them.
    """
    total = 0
    for weight in case.weights("w"):
        fmt = weight.format
        widened = kernel_bytes(weight) + math.prod(weight.shape) * fmt.kernel_bits // 8
        total += weight.nbytes + (widened if in_planes(fmt) else weight.nbytes)
    return total


def wanted_copies(case: MatrixCase) -> int:
    """As many matrices as fill the working set. Products of many tokens are bound by arithmetic: two will do."""
    if case.tokens > 1:
        return _CHUNK_COPIES
    return max(1, min(MOST_COPIES, round(case.working_set / weight_bytes(case))))


def has_room(case: MatrixCase, room: Room) -> bool:
    """Whether all wanted copies find room."""
    return wanted_copies(case) <= _most(case, room)


def copies_in(case: MatrixCase, room: Room) -> int:
    """How many matrices to time: the wanted ones, or those that find room.

    Raises:
        OutputError: The disk takes too few of them for a timing that means anything.
        BudgetError: Memory does.
    """
    each, wanted, most = weight_bytes(case), wanted_copies(case), _most(case, room)
    least = min(wanted, math.ceil(LEAST_BYTES / sum(kernel_bytes(weight) for weight in case.weights("w"))))
    if _OF_DISK * room.disk < least * each:
        raise room.no_disk(math.ceil(least * each / _OF_DISK))
    if most < least:
        needed = math.ceil(least * memory_bytes(case) / _OF_MEMORY)
        raise BudgetError(
            f"Timing kernels takes {format_bytes(needed)} of memory for a moment; "
            f"{format_bytes(room.memory)} are available.",
            hint=f"Close other programs, {_WITHOUT}",
        )
    return min(wanted, most)


def _most(case: MatrixCase, room: Room) -> int:
    return int(min(_OF_DISK * room.disk // weight_bytes(case), _OF_MEMORY * room.memory // memory_bytes(case)))
