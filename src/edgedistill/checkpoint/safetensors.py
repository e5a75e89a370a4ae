"""Safetensors checkpoints, single or sharded, as a ``TensorSource``.

The header is parsed and checked here rather than by the safetensors package: that one has no bfloat16 without torch,
maps the whole file, and reports damage without saying which tensor. Nothing in a header is trusted before it was
compared with the size of the file.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.checkpoint.raw_file import RawFile
from edgedistill.checkpoint.types import TensorInfo
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_SHARD = re.compile(r"(?P<model>.+?)[-_.](\d+)-of-(\d+)(?P<variant>\.\w+)?\.safetensors")

# Limit of the format's own implementation; a real header is some hundred kilobytes.
_MAX_HEADER = 100_000_000
_ITEM_SIZES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
_STORED = {
    "BOOL": "?", "U8": "u1", "I8": "i1", "U16": "<u2", "I16": "<i2", "F16": "<f2", "BF16": "<u2", "U32": "<u4",
    "I32": "<i4", "F32": "<f4", "U64": "<u8", "I64": "<i8", "F64": "<f8",
}  # fmt: skip
_FLOATS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8"}
_AGAIN = "The file is damaged or incomplete: download or copy it again."


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies: its header, file, absolute byte offset and byte count."""

    info: TensorInfo
    file: RawFile
    offset: int
    nbytes: int


class SafetensorsSource:
    """Rows of the tensors of one or more safetensors files, as float32."""

    def __init__(self, tensors: dict[str, StoredTensor], files: tuple[RawFile, ...]) -> None:
        self._tensors = tensors
        self._files = files

    @property
    def paths(self) -> tuple[Path, ...]:
        """The weights files, in order of their names."""
        return tuple(sorted((file.path for file in self._files), key=lambda path: path.name))

    def names(self) -> Iterable[str]:
        """All tensor names."""
        return self._tensors.keys()

    def info(self, name: str) -> TensorInfo:
        """Header of ``name``; raises CheckpointError if there is none."""
        return self._find(name).info

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows ``start:stop`` as float32 [stop-start, ...]; exact, but for float64, whose values are rounded.

        Raises CheckpointError on NaN or Inf and on a file that ends early, UnsupportedModelError on other types.
        """
        stored = self._find(name)
        info = stored.info
        dtype = _FLOATS.get(info.dtype)
        if dtype is None:
            raise UnsupportedModelError(
                f"Tensor {name} has type {info.dtype}; expected one of {', '.join(_FLOATS)}.",
                hint="config.json says nothing of how its values are quantized: use the original checkpoint of the "
                "model, or a GGUF file of it.",
            )
        check_rows(info, start, stop)
        raw = np.empty((stop - start, *info.shape[1:]), dtype)
        stored.file.read_into(raw, stored.offset + start * math.prod(info.shape[1:]) * raw.itemsize)
        with np.errstate(over="ignore"):  # what float32 does not hold is refused as the Inf that it becomes
            rows = widen(raw) if info.dtype == "BF16" else raw.astype(np.float32, copy=False)
        check_finite(rows, name, start, stored.file.path.name)
        return rows

    def read_stored(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows ``start:stop`` (a scalar is one row) as stored; eight-bit floats as uint8, bfloat16 as uint16."""
        stored = self._find(name)
        shape = stored.info.shape or (1,)
        raw = np.empty((stop - start, *shape[1:]), _STORED.get(stored.info.dtype, "u1"))
        stored.file.read_into(raw, stored.offset + start * math.prod(shape[1:]) * raw.itemsize)
        return raw

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def _find(self, name: str) -> StoredTensor:
        if (stored := self._tensors.get(name)) is None:
            raise missing_tensor(name, self._tensors)
        return stored


def open_safetensors(directory: Path) -> SafetensorsSource:
    """Open ``model.safetensors``, the shards of ``model.safetensors.index.json``, or the only other file of weights in
    ``directory`` (``model.fp16.safetensors``).

    Raises CheckpointError on anything missing, damaged or outside the directory.
    """
    if (directory / SINGLE_FILE).exists():
        return open_safetensors_file(directory / SINGLE_FILE)
    if (directory / INDEX_FILE).exists():
        weight_map = _read_index(directory / INDEX_FILE)
    elif not (weight_map := _map_of_shards(directory)):
        others = [path for path in sorted(directory.glob("*.safetensors")) if not path.name.startswith("adapter")]
        if len(others) == 1:
            return open_safetensors_file(others[0])
        raise _no_weights(directory)
    opened: list[RawFile] = []
    try:
        shards: dict[str, dict[str, StoredTensor]] = {}
        for shard in sorted(set(weight_map.values())):
            if not (directory / shard).exists():
                raise CheckpointError(
                    f"{INDEX_FILE} names shard {shard}, which is missing from {directory.name}.",
                    hint="Download the missing shard.",
                )
            opened.append(RawFile(directory / shard))
            shards[shard] = _read_header(opened[-1])
        tensors: dict[str, StoredTensor] = {}
        for name, shard in weight_map.items():
            if name not in shards[shard]:
                raise CheckpointError(f"{INDEX_FILE} places tensor {name} in {shard}, which lacks it.", hint=_AGAIN)
            tensors[name] = shards[shard][name]
    except BaseException:
        for file in opened:
            file.close()
        raise
    return SafetensorsSource(tensors, tuple(opened))


def open_safetensors_file(path: Path) -> SafetensorsSource:
    """Open one safetensors file. Raises CheckpointError if it is missing or damaged."""
    file = RawFile(path)
    try:
        return SafetensorsSource(_read_header(file), (file,))
    except BaseException:
        file.close()
        raise


def widen(raw: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """bfloat16 bit patterns (uint16, any shape) as float32: bfloat16 is the upper half of a float32."""
    wide = raw.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def check_rows(info: TensorInfo, start: int, stop: int) -> None:
    """Raise ValueError (a bug of the caller) unless ``start:stop`` is a range of rows of the tensor."""
    if not info.shape or not 0 <= start <= stop <= info.shape[0]:
        raise ValueError(f"rows {start}:{stop} of {info.name} {info.shape}")


def check_finite(rows: npt.NDArray[np.float32], name: str, start: int, file_name: str) -> None:
    """Raise CheckpointError if ``rows`` (rows ``start`` onwards of tensor ``name``) hold NaN or Inf."""
    # The sum of an array with NaN or Inf is never finite, and it needs no second array; only if the sum is not
    # finite (possible too for huge finite values) does the exact test run.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(rows.sum()):
            return
    finite = np.isfinite(rows)
    if finite.all():
        return
    where = np.argwhere(~finite)[0]
    value = rows[tuple(where)]
    position = ", ".join(str(int(i) + (start if axis == 0 else 0)) for axis, i in enumerate(where))
    raise CheckpointError(
        f"Tensor {name} in {file_name} holds {value} at [{position}]; expected finite weights.",
        hint="The checkpoint is damaged or its training diverged: use another checkpoint.",
    )


def missing_tensor(name: str, names: Iterable[str]) -> CheckpointError:
    """The error for a tensor that the checkpoint lacks, with the nearest name it has."""
    close = difflib.get_close_matches(name, list(names), n=1)
    nearest = f" The nearest name in it is {close[0]}." if close else ""
    return CheckpointError(
        f"The checkpoint has no tensor {name}.{nearest}",
        hint="Check that config.json belongs to these weights and that no shard is missing.",
    )


def _no_weights(directory: Path) -> CheckpointError:
    others = sorted(path.name for path in directory.iterdir() if path.suffix in (".bin", ".pt", ".pth", ".gguf"))
    several = sorted(path.name for path in directory.glob("*.safetensors"))
    if any(name.endswith(".gguf") for name in others):
        hint = f"It has a GGUF file: pass {directory.name}/{next(n for n in others if n.endswith('.gguf'))} itself."
    elif several:
        hint = f"It has {', '.join(several[:4])}: call the file of the model {SINGLE_FILE}."
    elif others:
        hint = f"It has {others[0]}: save the model with safe_serialization=True in transformers first."
    else:
        hint = "Pass a directory with config.json, tokenizer.json and safetensors weights."
    return CheckpointError(f"{directory.name} has neither {SINGLE_FILE} nor {INDEX_FILE}.", hint=hint)


def _map_of_shards(directory: Path) -> dict[str, str]:
    """Tensor name -> shard name of numbered shards whose index is missing; empty where there are none.

    Raises CheckpointError where a number is missing or two shards hold one tensor.
    """
    found = {path.name: match for path in sorted(directory.iterdir()) if (match := _SHARD.fullmatch(path.name))}
    found = {name: match for name, match in found.items() if not name.startswith("adapter")}
    if not found:
        return {}
    models = {(match["model"], match["variant"], int(match[3])) for match in found.values()}
    numbers, most = sorted(int(match[2]) for match in found.values()), max(int(match[3]) for match in found.values())
    if len(models) != 1 or numbers != list(range(1, most + 1)):
        raise CheckpointError(
            f"{directory.name} has shards {', '.join(found)} and no {INDEX_FILE}; expected 1 to {most} of one model.",
            hint="Download the missing shards, and leave those of one model there.",
        )
    weight_map: dict[str, str] = {}
    for shard in found:
        file = RawFile(directory / shard)
        try:
            names = _read_header(file)
        finally:
            file.close()
        if twice := next((name for name in names if name in weight_map), None):
            raise CheckpointError(f"{shard} and {weight_map[twice]} both hold the tensor {twice}.", hint=_AGAIN)
        weight_map |= dict.fromkeys(names, shard)
    return weight_map


def _read_index(path: Path) -> dict[str, str]:
    """The checked ``weight_map``: tensor name -> shard name, every shard a plain name inside the directory."""
    try:
        weight_map = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if not isinstance(weight_map, dict) or not weight_map:
            raise TypeError("weight_map is not a table of tensors")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(
            f"{path.name} is not a shard index: expected JSON with weight_map.", hint=_AGAIN
        ) from error
    for name, shard in weight_map.items():
        # Shards may be symlinks (the hub's cache is made of them), but their names never leave the directory.
        plain = isinstance(shard, str) and shard not in ("", ".", "..") and not set("/\\\0") & set(shard)
        if not plain:
            raise CheckpointError(
                f"{path.name} places tensor {name} in {shard!r}, which points outside the directory.",
                hint="A shard is a plain file name beside the index: do not use this checkpoint.",
            )
    return weight_map


def _read_header(file: RawFile) -> dict[str, StoredTensor]:
    """Tensors of a safetensors file; raises CheckpointError if header and file do not fit together."""
    name = file.path.name
    if file.size < 8:
        raise CheckpointError(f"{name}: file has {file.size} bytes, a safetensors file has at least 8.", hint=_AGAIN)
    length = int.from_bytes(file.read(0, 8), "little")
    if length > min(_MAX_HEADER, file.size - 8):
        raise CheckpointError(
            f"{name}: header claims {length} bytes, the file has {file.size}.",
            hint="This is not a safetensors file, or it is truncated: download or copy it again.",
        )
    try:
        header = json.loads(file.read(8, length).decode("utf-8"), object_pairs_hook=_unique)
        if not isinstance(header, dict):
            raise TypeError("not an object")
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{name}: header is not a JSON object of tensors.", hint=_AGAIN) from error
    header.pop("__metadata__", None)
    data = 8 + length
    tensors = {key: _read_entry(key, entry, file, data) for key, entry in header.items()}
    end = data
    for stored in sorted(tensors.values(), key=lambda stored: stored.offset):
        if stored.nbytes and stored.offset < end:
            raise CheckpointError(f"{name}: tensor {stored.info.name} overlaps another one.", hint=_AGAIN)
        end = max(end, stored.offset + stored.nbytes)
    if end > file.size:
        raise CheckpointError(
            f"{name}: file has {file.size} bytes, its header describes {end}.",
            hint="The file is truncated: download or copy it again.",
        )
    return tensors


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a name occurs twice")
    return table


def _read_entry(name: str, entry: object, file: RawFile, data: int) -> StoredTensor:
    """One checked header entry; ``data`` is the absolute offset of the tensor data."""
    try:
        if not name.isprintable():
            # Names appear in messages; one with control characters could write on a terminal what it likes.
            raise ValueError("the name is not printable")
        if not isinstance(entry, dict):
            raise TypeError("not an object")
        dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        sizes = (*shape, begin, end)
        if not all(type(size) is int and 0 <= size < 1 << 62 for size in sizes) or begin > end:
            raise ValueError("sizes and offsets are whole numbers from 0")
        itemsize = _ITEM_SIZES.get(dtype)
        if itemsize is not None and end - begin != itemsize * math.prod(shape):
            raise ValueError(f"{dtype} {list(shape)} needs {itemsize * math.prod(shape)} bytes, not {end - begin}")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file.path.name}: header entry of tensor {name[:200]!r} is malformed ({error}).", hint=_AGAIN
        ) from error
    return StoredTensor(TensorInfo(name, shape, dtype), file, data + begin, end - begin)
