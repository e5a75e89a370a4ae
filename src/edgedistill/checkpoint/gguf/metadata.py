"""Typed access to the metadata of a GGUF file's architecture."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping


class Keys:
    """Values below ``<architecture>.``; CheckpointError for a value of another kind than expected or a missing one."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self._metadata = metadata
        self._prefix = metadata["general.architecture"]

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number from 0."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0 or value >= 1 << 40:
            raise self._bad(key, value, "a whole number")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        """A finite number from 0."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise self._bad(key, value, "a finite number from 0")
        return _shortest(value) if isinstance(value, float) else float(value)

    def text(self, key: str, default: str) -> str:
        """Text."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self._bad(key, value, "text")
        return value

    def _get(self, key: str, default: Any) -> Any:
        value = self._metadata.get(f"{self._prefix}.{key}", default)
        if isinstance(value, np.ndarray):  # one value for each layer: known only if all are the same
            if value.size == 0 or (value != value[0]).any():
                raise UnsupportedModelError(f"{self._prefix}.{key} differs between layers, which is not known.")
            value = value[0].item()
        return value

    def _bad(self, key: str, value: object, expected: str) -> CheckpointError:
        shown = "missing" if value is None else repr(value)
        return CheckpointError(
            f"GGUF metadata {self._prefix}.{key} is {shown}, expected {expected}.", hint="Download the file again."
        )


def _shortest(value: Any) -> float:
    """The decimal that a float32 was written as: 1e-05 rather than 9.999999747378752e-06."""
    return float(str(np.float32(value)))
