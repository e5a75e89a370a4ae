"""Experts in MXFP4 as gpt-oss stores them, as the float32 values that they stand for.

OCP Microscaling Formats 1.0: 32 values E2M1 share a power of two (E8M0). ``X_blocks`` uint8 [experts, rows, groups, 16]
holds two codes a byte, the even one low, ``X_scales`` uint8 [experts, rows, groups] the exponents with 127 added. What
is read is called ``X.rows``, float32 [experts, rows, 32 * groups]: rows are outputs, other than in ``X`` of the same
model in floats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.checkpoint.grid import Grid
from edgedistill.checkpoint.safetensors import check_finite, check_rows
from edgedistill.checkpoint.types import TensorInfo
from edgedistill.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from edgedistill.checkpoint.safetensors import SafetensorsSource

    Floats = npt.NDArray[np.float32]

GRID = Grid(5, 32, symmetric=True)
"""Twice a value is an integer from -12 to 12."""
_POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_VALUES = np.array([*_POSITIVE, *(-value for value in _POSITIVE)], np.float32)


class Mxfp4Tensors:
    """A source of plain tensors over one some of whose tensors are pairs of blocks and scales."""

    def __init__(self, source: SafetensorsSource) -> None:
        """Raises CheckpointError where blocks have no scales or shapes do not fit together."""
        self._source = source
        stored = list(source.names())
        self._packed = {f"{name.removesuffix('_blocks')}.rows": name for name in stored if name.endswith("_blocks")}
        parts = {part for name in self._packed.values() for part in (name, _scales_of(name))}
        self._plain = [name for name in stored if name not in parts]
        for name in self._packed.values():
            blocks = source.info(name)
            scales = source.info(_scales_of(name)).shape
            if blocks.dtype != "U8" or len(blocks.shape) != 4 or blocks.shape != (*scales, 16):
                raise CheckpointError(
                    f"'{name}' has shape {list(blocks.shape)}, its scales {list(scales)}; blocks of 16 bytes with a "
                    "scale each are expected.",
                    hint="The checkpoint is damaged: download it again.",
                )

    @property
    def paths(self) -> Any:
        """The weights files."""
        return self._source.paths

    def names(self) -> Iterable[str]:
        """Names of the plain tensors and of those that are dequantized."""
        return [*self._plain, *self._packed]

    def info(self, name: str) -> TensorInfo:
        """Header of ``name``; raises CheckpointError if there is none."""
        if name not in self._packed:
            return self._source.info(name)
        experts, rows, groups, _ = self._source.info(self._packed[name]).shape
        return TensorInfo(name, (experts, rows, 32 * groups), "MXFP4")

    def read_rows(self, name: str, start: int, stop: int) -> Floats:
        """Experts ``start:stop`` as float32; raises as the source does, and on values that are not finite."""
        if name not in self._packed:
            return self._source.read_rows(name, start, stop)
        info = self.info(name)
        check_rows(info, start, stop)
        blocks = self._source.read_stored(self._packed[name], start, stop)
        values = np.empty((*blocks.shape[:-1], 32), np.float32)
        values[..., 0::2] = _VALUES[blocks & 15]
        values[..., 1::2] = _VALUES[blocks >> 4]
        with np.errstate(over="ignore"):  # the exponent 255 stands for NaN, and is refused as what it gives
            values = np.ldexp(values, self._exponents(name, start, stop)[..., None], out=values)
        check_finite(values, name, start, self._source.paths[0].name)
        return values.reshape(stop - start, *info.shape[1:])

    def grid(self, name: str) -> Grid | None:
        """That of doubled E2M1 for packed tensors."""
        return GRID if name in self._packed else None

    def read_grid(self, name: str, start: int, stop: int) -> tuple[Floats, npt.NDArray[np.uint8]]:
        """Scales float32 [stop-start, rows, groups] and zero points, see ``GridSource``."""
        scales: Floats = np.ldexp(np.float32(0.5), self._exponents(name, start, stop))
        return scales, np.full(scales.shape, 1 << (GRID.bits - 1), np.uint8)

    def close(self) -> None:
        """Close the files."""
        self._source.close()

    def _exponents(self, name: str, start: int, stop: int) -> npt.NDArray[np.int32]:
        stored = self._source.read_stored(_scales_of(self._packed[name]), start, stop)
        return stored.astype(np.int32) - 127


def _scales_of(blocks: str) -> str:
    return f"{blocks.removesuffix('_blocks')}_scales"
