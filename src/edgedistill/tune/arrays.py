"""The stored arrays of a bundle by name, read from and written to weights.bin.

Where they lie is taken from the graph that is deployed, not from a plan: the graph's external tensors say name, type,
shape and offset, whatever made them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Place:
    """An array's ``dtype`` and ``shape``, and its first byte in the file ``location`` beside the graph."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    location: str
    offset: int


class StoredArrays:
    """Arrays that a graph refers to, by the initializer's name."""

    def __init__(self, graph: Path) -> None:
        """Read the places from ``graph``; raises BundleError if it cannot be read."""
        import onnx_ir

        try:
            model = onnx_ir.load(graph)
        except Exception as error:  # onnx_ir and protobuf raise exceptions of several kinds
            raise BundleError(f"{graph.name} cannot be read ({error}).", hint="Export the bundle again.") from error
        self.places: dict[str, Place] = {}
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if isinstance(tensor, onnx_ir.ExternalTensor):
                shape = tuple(int(size) for size in tensor.shape.numpy())
                self.places[name] = Place(tensor.dtype.numpy(), shape, str(tensor.location), int(tensor.offset or 0))

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def read(self, directory: Path, name: str) -> npt.NDArray[Any]:
        """A copy of the array ``name`` from the files in ``directory``."""
        place = self.places[name]
        count = int(np.prod(place.shape, dtype=np.int64))
        with (directory / place.location).open("rb") as stream:
            stream.seek(place.offset)
            values = np.fromfile(stream, place.dtype, count)
        if values.size != count:
            raise BundleError(f"{place.location} ends before the array {name}.", hint="Export the bundle again.")
        return values.reshape(place.shape)

    def write(self, directory: Path, arrays: dict[str, npt.NDArray[Any]]) -> tuple[str, ...]:
        """Overwrite arrays in the files in ``directory``; returns the names of those whose bytes changed.

        Raises ValueError for an array of another type or shape.
        """
        changed = []
        for name, values in arrays.items():
            place = self.places[name]
            if values.dtype != place.dtype or values.shape != place.shape:
                raise ValueError(f"{name}: got {values.dtype} {values.shape}, stored {place.dtype} {place.shape}")
            data = np.ascontiguousarray(values).tobytes()
            with (directory / place.location).open("r+b") as stream:
                stream.seek(place.offset)
                if stream.read(len(data)) != data:
                    changed.append(name)
                    stream.seek(place.offset)
                    stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        return tuple(changed)
