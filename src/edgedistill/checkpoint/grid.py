"""The grid of a tensor that is stored quantized in blocks: what it takes to store it again without rounding twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgedistill.checkpoint.types import TensorSource

    Scales = npt.NDArray[np.float32]
    ZeroPoints = npt.NDArray[np.uint8 | np.float32]


@dataclass(frozen=True, slots=True)
class Grid:
    """Values are (code - zero point) * scale, with a scale for every ``block_size`` elements of a row.

    Attributes:
        bits: Of a code.
        block_size: Elements along a row that share a scale.
        symmetric: The zero point is 2^(bits-1) everywhere.
        scale_bits: Of a float that holds every scale: exactly, but for Q6_K, whose scales are products of two numbers
            and lose at most 2^-11 of their size, as those of Q3_K, Q4_K and Q5_K do.
        offsets: Zero points are no whole numbers, as blocks have a minimum of their own (Q4_1, Q4_K): float32.
    """

    bits: int
    block_size: int
    symmetric: bool
    scale_bits: int = 16
    offsets: bool = False


@runtime_checkable
class GridSource(Protocol):
    """A ``TensorSource`` some of whose tensors have a grid."""

    def grid(self, name: str) -> Grid | None:
        """The grid of ``name``, None where its values lie on none that is known."""
        ...

    def read_grid(self, name: str, start: int, stop: int) -> tuple[Scales, ZeroPoints]:
        """Scales float32 [stop-start, blocks] and zero points of the same shape of the rows ``start:stop``: uint8, or
        float32 where the grid has ``offsets``."""
        ...


def grid_of(source: TensorSource, name: str) -> Grid | None:
    """The grid of a tensor of any source."""
    return source.grid(name) if isinstance(source, GridSource) else None


def read_grid(source: TensorSource, name: str, start: int, stop: int) -> tuple[Scales, ZeroPoints]:
    """See ``GridSource``; the tensor must have a grid."""
    if not isinstance(source, GridSource):
        raise TypeError(f"{name} has no grid")
    return source.read_grid(name, start, stop)
