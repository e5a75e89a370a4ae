"""BitNet checkpoints: matrices of -1, 0 and 1 with one scale, packed four to a byte or rounded when they are read.

Layouts as transformers writes them (``integrations/bitnet``): a packed matrix [N / 4, K] holds in bits 2i and 2i + 1
the rows from i N / 4 on, each plus 1; ``bitlinear`` divides by the ``weight_scale`` that ``autobitlinear`` multiplies
with. Matrices of ``autobitlinear`` in the mode ``online`` are floats, and rounded by their mean magnitude.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.checkpoint.config_values import mapping
from edgedistill.checkpoint.grid import Grid
from edgedistill.checkpoint.safetensors import check_rows
from edgedistill.checkpoint.types import TensorInfo
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from edgedistill.checkpoint.safetensors import SafetensorsSource

    Floats = npt.NDArray[np.float32]

ROUNDED_INPUTS = "rounded_linear_inputs"
"""Key that is put into config.json: inputs of the layers' matrices are rounded to 8 bits per token."""
_BLOCKS = (256, 128, 64, 32, 16)
_SCALE = ".weight_scale"
_LAYERS = "layers."


def open_bitnet(config: dict[str, Any], source: SafetensorsSource) -> tuple[dict[str, Any], BitnetTensors]:
    """``config`` without its quantization, but with what the graph has to compute, and a source of plain tensors.

    Raises UnsupportedModelError for norms that transformers puts before every matrix of its own accord, and for layers
    that are ternary in part.
    """
    stated = mapping(config, "quantization_config")
    if stated.get("use_rms_norm"):
        raise UnsupportedModelError(
            "The BitNet checkpoint asks for use_rms_norm, norms without weights before every matrix; expected none.",
            hint="Use a checkpoint of the model in another form.",
        )
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    divided = stated.get("linear_class", "bitlinear") == "bitlinear"
    online = not divided and stated.get("quantization_mode") == "online"
    whole = [name for name in source.names() if _LAYERS in name and len(source.info(name).shape) == 2]
    if not online and (floats := [name for name in whole if source.info(name).dtype != "U8"]):
        raise UnsupportedModelError(
            f"The BitNet checkpoint has {len(floats)} of {len(whole)} matrices in floats, such as {floats[0]}; "
            "expected all of the layers' matrices packed.",
            hint="Use a checkpoint of the model in another form.",
        )
    return plain | {ROUNDED_INPUTS: True}, BitnetTensors(source, divided=divided)


class BitnetTensors:
    """Float32 rows of the matrices that ternary ones stand for; everything else as it is stored."""

    def __init__(self, source: SafetensorsSource, *, divided: bool) -> None:
        """``divided``: matrices are divided by their scale instead of multiplied."""
        self._source, self._divided = source, divided
        self._last: tuple[str, Floats, np.float32] | None = None

    @property
    def paths(self) -> Any:
        """The weights files."""
        return self._source.paths

    def names(self) -> Iterable[str]:
        """Names of all tensors but the scales."""
        return [name for name in self._source.names() if not name.endswith(_SCALE)]

    def info(self, name: str) -> TensorInfo:
        """Header of ``name``, unpacked; raises CheckpointError if there is none."""
        info = self._source.info(name)
        if info.dtype != "U8":
            return info
        return TensorInfo(name, (4 * info.shape[0], *info.shape[1:]), "U8")

    def read_rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows ``start:stop`` as float32; raises as the source does."""
        if not self._is_ternary(name):
            return self._source.read_rows(name, start, stop)
        check_rows(self.info(name), start, stop)
        codes, scale = self._ternary(name)
        return codes[start:stop] * scale

    def grid(self, name: str) -> Grid | None:
        """That of 2 bits with the largest block that divides the rows."""
        if not self._is_ternary(name):
            return None
        block = self._block(name)
        scale = self._ternary(name)[1]
        return Grid(2, block, symmetric=True, scale_bits=16 if np.float16(scale) == scale else 32) if block else None

    def read_grid(self, name: str, start: int, stop: int) -> tuple[Floats, npt.NDArray[np.uint8]]:
        """Scales float32 [stop-start, blocks], all the same, and zero points, see ``GridSource``."""
        shape = (stop - start, self.info(name).shape[1] // self._block(name))
        return np.full(shape, self._ternary(name)[1], np.float32), np.full(shape, 2, np.uint8)

    def close(self) -> None:
        """Close the files."""
        self._source.close()

    def _block(self, name: str) -> int:
        return next((size for size in _BLOCKS if self.info(name).shape[1] % size == 0), 0)

    def _is_ternary(self, name: str) -> bool:
        info = self._source.info(name)
        return info.dtype == "U8" or (len(info.shape) == 2 and _LAYERS in name)

    def _ternary(self, name: str) -> tuple[Floats, np.float32]:
        """-1, 0 and 1 as float32 [N, K], and the scale, kept for the tensor that is being read."""
        last = self._last
        if last is None or last[0] != name:
            self._last = last = (name, *self._read(name))
        return last[1], last[2]

    def _read(self, name: str) -> tuple[Floats, np.float32]:
        info = self._source.info(name)
        if info.dtype != "U8":
            values = self._source.read_rows(name, 0, info.shape[0])
            mean = max(np.float32(np.abs(values).mean(dtype=np.float64)), np.float32(1e-5))
            return np.clip(np.rint(values / mean), -1, 1).astype(np.float32), mean
        packed = self._source.read_stored(name, 0, info.shape[0])
        codes = np.concatenate([(packed >> np.uint8(shift)) & np.uint8(3) for shift in (0, 2, 4, 6)])
        at = name.removesuffix(".weight") + _SCALE
        if at not in self._source.names() or codes.max(initial=0) > 2:
            raise CheckpointError(
                f"The BitNet matrix {name} has {'codes above 2' if at in self._source.names() else 'no ' + at}; "
                "expected codes of 0 to 2 and a scale.",
                hint="The checkpoint is damaged: download it again.",
            )
        shape = self._source.info(at).shape
        found = self._source.read_rows(at, 0, 1) if shape else np.ones(1, np.float32)
        scale = np.float32(found.reshape(-1)[0])
        return codes.astype(np.float32) - np.float32(1), np.float32(1) / scale if self._divided else scale
