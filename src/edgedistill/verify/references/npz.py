"""Reads the arrays of a compressed NumPy archive (npz) from an untrusted file, in bounded memory.

``numpy.load`` trusts the archive: a few hundred kilobytes can inflate to any size, and the shape in an array's header
is allocated before its bytes are read.
"""

from __future__ import annotations

import io
import math
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from edgedistill.errors import VerifyError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

_FREE_BYTES = 64 << 20
_MOST_RATIO = 40
"""Largest compression ratio: log probabilities hardly shrink, token ids and JSON text by a factor below 20."""
_TYPES = {"header": "uint8", "ids": "uint32", "logprobs": "float32", "tail": "float32"}


def read_arrays(body: bytes, source: str, dimensions: Mapping[str, int]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an archive by name, each with its number of ``dimensions``.

    Raises:
        VerifyError: It is not an archive, arrays are missing or of another type, or it inflates to too much data.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            entries = {name: archive.getinfo(f"{name}.npy") for name in dimensions}
            size, most = sum(entry.file_size for entry in entries.values()), _FREE_BYTES + _MOST_RATIO * len(body)
            if size > most:
                raise ValueError(f"it inflates to {size >> 20} MiB, the most expected are {most >> 20}")
            return {name: _array(archive.read(entry), name, dimensions[name]) for name, entry in entries.items()}
    except Exception as error:  # zipfile and zlib raise what the bytes lead them to
        raise VerifyError(f"{source} is malformed ({error}).", hint="Fetch it again from where it was made.") from error


def _array(data: bytes, name: str, dimensions: int) -> npt.NDArray[Any]:
    stream = io.BytesIO(data)
    if npy.read_magic(stream) != (1, 0):
        raise ValueError(f"{name} has an unknown version")
    shape, fortran_order, dtype = npy.read_array_header_1_0(stream)
    rest = data[stream.tell() :]
    if dtype != np.dtype(_TYPES[name]) or len(shape) != dimensions or fortran_order:
        raise ValueError(f"{name} is {dtype} of {len(shape)} dimensions")
    if min(shape) < 0 or math.prod(shape) * dtype.itemsize != len(rest):
        raise ValueError(f"{name} ends before its shape {shape}")
    return np.frombuffer(rest, dtype).reshape(shape)
