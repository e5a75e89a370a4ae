"""The header of a GGUF file, checked: metadata and where each tensor lies.

The gguf package maps the file and trusts it: a damaged count makes it loop or allocate without end. Here every count,
length and offset is compared with what is left of the file first. Format: docs/gguf.md of ggml-org/ggml.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from edgedistill.checkpoint.raw_file import RawFile
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_VERSIONS = (2, 3)
_ALIGNMENT = 32
_CHUNK = 1 << 20
_MAX_ITEMS = 1 << 22
_MAX_VALUE_BYTES = 1 << 28
_AGAIN = "The file is damaged or incomplete: download or copy it again."

_UINT32, _BOOL, _STRING, _ARRAY = 4, 7, 8, 9
# Value type number -> struct format.
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor as stored: GGUF name, shape with the row axis first, type, absolute offset and size in bytes."""

    name: str
    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata (arrays as lists or NumPy arrays) and tensors by GGUF name."""

    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


class _Cursor:
    """Reads forward through the header, never past the end of the file."""

    def __init__(self, file: RawFile) -> None:
        self.file = file
        self.position = 0
        self._buffer = b""
        self._start = 0

    @property
    def left(self) -> int:
        return self.file.size - self.position

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        if count > self.left:
            raise CheckpointError(
                f"{self.file.path.name}: the header needs {count} bytes at {self.position}, "
                f"but the file ends at {self.file.size}.",
                hint=_AGAIN,
            )
        if count > _MAX_VALUE_BYTES:
            raise self.bad(f"a metadata value of {count} bytes")
        begin = self.position - self._start
        if begin + count > len(self._buffer):
            self._buffer = self.file.read(self.position, min(max(count, _CHUNK), self.left))
            self._start, begin = self.position, 0
        self.position += count
        return self._buffer[begin : begin + count]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def name(self) -> str:
        """Text that messages may show: printable, so it cannot write on a terminal what it likes."""
        name = self.text()
        if not name.isprintable():
            raise self.bad(f"the unprintable name {name[:80]!r}")
        return name

    def text(self) -> str:
        length = self.number("<Q")
        at = self.position
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.bad(f"text at byte {at} that is not UTF-8") from error

    def count(self, what: str, least: int) -> int:
        """A number of things of at least ``least`` bytes each, refused if they cannot fit into the file."""
        value: int = self.number("<Q")
        if value > _MAX_ITEMS or value * least > self.left:
            raise self.bad(f"{value} {what}, more than its {self.file.size} bytes can hold")
        return value

    def bad(self, what: str) -> CheckpointError:
        return CheckpointError(f"{self.file.path.name}: the GGUF header has {what}.", hint=_AGAIN)


def open_gguf(path: Path) -> tuple[GgufHeader, RawFile]:
    """Header of the GGUF file ``path``, and the file open for reading tensors.

    Raises CheckpointError for anything that is not a sound GGUF file.
    """
    file = RawFile(path)
    try:
        return read_header(file), file
    except BaseException:
        file.close()
        raise


def read_header(file: RawFile) -> GgufHeader:
    """Parse and check the header of ``file``; raises CheckpointError and UnsupportedModelError."""
    cursor = _Cursor(file)
    name = file.path.name
    magic = file.read(0, min(4, file.size))
    if magic != b"GGUF":
        raise CheckpointError(f"{name} starts with {magic!r}, a GGUF file with b'GGUF'.", hint=_AGAIN)
    cursor.take(4)
    version = cursor.number("<I")
    if version not in _VERSIONS:
        if version and version & 0xFFFF == 0:
            raise UnsupportedModelError(f"{name} is a big-endian GGUF file; expected a little-endian one.")
        raise UnsupportedModelError(
            f"{name} is GGUF version {version}; expected 2 or 3.",
            hint="Convert the model with a current llama.cpp.",
        )
    tensor_count = cursor.count("tensors", 24)
    value_count = cursor.count("metadata values", 13)
    metadata: dict[str, Any] = {}
    for _ in range(value_count):
        key = cursor.name()
        if key in metadata:
            raise cursor.bad(f"the key {key!r} twice")
        metadata[key] = _value(cursor, cursor.number("<I"), key)
    entries = [_tensor_entry(cursor) for _ in range(tensor_count)]
    alignment = metadata.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1) or alignment > 1 << 20:
        raise cursor.bad(f"general.alignment {alignment!r}, expected a power of two")
    data = math.ceil(cursor.position / alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for tensor in entries:
        if tensor.name in tensors:
            raise cursor.bad(f"the tensor {tensor.name!r} twice")
        if tensor.offset % alignment:
            raise cursor.bad(f"tensor {tensor.name} at offset {tensor.offset}, expected a multiple of {alignment}")
        end = data + tensor.offset + tensor.nbytes
        if end > file.size:
            raise CheckpointError(
                f"{name}: file has {file.size} bytes, tensor {tensor.name} needs bytes up to {end}.",
                hint="The file is truncated or damaged: download or copy it again.",
            )
        tensors[tensor.name] = GgufTensor(tensor.name, tensor.shape, tensor.kind, data + tensor.offset, tensor.nbytes)
    return GgufHeader(metadata, tensors)


def _value(cursor: _Cursor, kind: int, key: str) -> Any:
    if kind == _STRING:
        return cursor.text()
    if kind == _ARRAY:
        return _array(cursor, key)
    if kind == _BOOL:
        return cursor.take(1) != b"\0"
    if kind not in _SCALARS:
        raise cursor.bad(f"the unknown value type {kind} at key {key!r}")
    return cursor.number(_SCALARS[kind])


def _array(cursor: _Cursor, key: str) -> Any:
    kind = cursor.number("<I")
    if kind == _STRING:
        return [cursor.text() for _ in range(cursor.count(f"strings in {key!r}", 8))]
    if kind not in _SCALARS:
        raise cursor.bad(f"an array of the unknown or nested type {kind} at key {key!r}")
    dtype = np.dtype(_SCALARS[kind].replace("?", "B").replace("<B", "u1").replace("<b", "i1"))
    length = cursor.count(f"numbers in {key!r}", dtype.itemsize)
    return np.frombuffer(cursor.take(length * dtype.itemsize), dtype)


def _tensor_entry(cursor: _Cursor) -> GgufTensor:
    """One checked tensor entry; its offset is still relative to the tensor data."""
    name = cursor.name()
    rank = cursor.number("<I")
    if not 1 <= rank <= 4:
        raise cursor.bad(f"tensor {name!r} with {rank} dimensions, expected 1 to 4")
    shape = tuple(reversed(struct.unpack(f"<{rank}Q", cursor.take(8 * rank))))
    number = cursor.number("<I")
    offset: int = cursor.number("<Q")
    try:
        kind = GGMLQuantizationType(number)
    except ValueError as error:
        raise CheckpointError(
            f"{cursor.file.path.name}: tensor {name} has type number {number}, which is not supported.",
            hint="The file is damaged, or newer than the installed gguf package: update that, or download it again.",
        ) from error
    block, size = GGML_QUANT_SIZES[kind]
    elements = math.prod(shape)
    if elements == 0 or elements >= 1 << 62:
        raise cursor.bad(f"tensor {name!r} of shape {list(shape)}")
    if shape[-1] % block:
        raise cursor.bad(f"tensor {name!r} with rows of {shape[-1]}, expected a multiple of {block} for {kind.name}")
    return GgufTensor(name, shape, kind, offset, elements // block * size)


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

    def flag(self, key: str, default: bool) -> bool:
        """A truth value."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self._bad(key, value, "true or false")
        return value

    def flags(self, key: str, count: int, default: int) -> list[bool]:
        """A truth value for each of ``count`` layers, or a number n (``default``): false for every n-th."""
        value = self._metadata.get(f"{self._prefix}.{key}", default)
        if isinstance(value, np.ndarray) and value.size == count:
            return [bool(flag) for flag in value]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._bad(key, value, f"a whole number, or a truth value for each of {count} layers")
        return [(index + 1) % value != 0 for index in range(count)]

    def reals(self, key: str, count: int) -> list[float]:
        """A number for each of ``count`` layers, of any sign and size."""
        value = self._metadata.get(f"{self._prefix}.{key}")
        if not isinstance(value, np.ndarray) or value.size != count or value.dtype.kind != "f" or np.isnan(value).any():
            raise self._bad(key, value, f"a number for each of {count} layers")
        return [float(number) for number in value]

    def each(self, key: str, count: int, default: int | None = None) -> list[int]:
        """A whole number from 0 for each of ``count`` layers."""
        value = self._metadata.get(f"{self._prefix}.{key}", default)
        if isinstance(value, np.ndarray) and value.size == count and count and value.dtype.kind in "iu":
            return [int(number) for number in value]
        return [self.integer(key, default)] * count

    def _get(self, key: str, default: Any) -> Any:
        value = self._metadata.get(f"{self._prefix}.{key}", default)
        if isinstance(value, np.ndarray):  # one value for each layer: known only if all are the same
            if value.size == 0 or (value != value[0]).any():
                raise UnsupportedModelError(f"{self._prefix}.{key} differs between layers, which is not supported.")
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
