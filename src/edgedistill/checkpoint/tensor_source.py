"""Where weights come from: a lazy, row-wise view of a checkpoint's tensors.

Every file format (safetensors, GGUF, a LoRA adapter merged on the fly) hides behind ``TensorSource``, so that the
exporter never holds more than a slice of a tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Header of one tensor: Hugging Face ``name``, ``shape`` and the stored type (``F32``, ``BF16``, ``Q4_1``, ...)."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class TensorSource(Protocol):
    """Read access to a checkpoint, tensor by tensor and row by row. Names are Hugging Face's, for GGUF too."""

    def names(self) -> Iterable[str]:
        """All tensor names."""
        ...

    def info(self, name: str) -> TensorInfo:
        """Header of ``name``; raises CheckpointError if there is none."""
        ...

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows ``start:stop`` along the first axis as a new float32 array [stop-start, ...] (exact for fp16/bf16).

        Raises CheckpointError on NaN or Inf values and on a file shorter than its header says.
        """
        ...

    def close(self) -> None:
        """Release the mapped files."""
        ...
