"""Checkpoints that are stored quantized: FP8, AWQ, GPTQ and compressed-tensors, as the float32 values they stand for
(MXFP4: ``mxfp4``).

Layouts as the projects write them: FP8 with a scale a block (transformers ``integrations/finegrained_fp8``), AWQ's GEMM
layout (AutoAWQ ``utils/packing_utils``), GPTQ's (AutoGPTQ ``qlinear``; ``checkpoint_format`` gptq_v2 stores zero points
as they are, gptq one less), compressed-tensors' ``pack-quantized``, ``float-quantized`` and ``int-quantized``, whose
groups may differ in bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgedistill.checkpoint.bitnet import open_bitnet
from edgedistill.checkpoint.config_values import mapping
from edgedistill.checkpoint.grid import Grid
from edgedistill.checkpoint.mxfp4 import Mxfp4Tensors
from edgedistill.checkpoint.packed_codes import e4m3, e5m2, unpack
from edgedistill.checkpoint.safetensors import check_finite, check_rows, widen
from edgedistill.checkpoint.types import TensorInfo
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from edgedistill.checkpoint.safetensors import SafetensorsSource

    Floats = npt.NDArray[np.float32]
    Codes = npt.NDArray[np.int32]

Kind = Literal["bytes", "awq", "gptq", "packed"]
_KEYS = ("quantization_config", "compression_config")
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_WHOLE = ("F8_E4M3", "F8_E5M2", "I8")
"""Types of matrices that are stored one value a byte."""
_PARTS = ("qweight", "qzeros", "scales", "g_idx", "weight_packed", "weight_scale", "weight_scale_inv",
          "weight_zero_point", "weight_shape", "weight_g_idx", "input_scale", "input_scale_ub", "input_zero_point",
          "output_scale", "k_scale", "v_scale")  # fmt: skip
_NO_WEIGHTS = (".input_scale", ".activation_scale", ".output_scale", ".k_scale", ".v_scale", ".q_scale")
"""Scales of activations and caches, which a bundle has its own of."""
_HINT = "Use the original checkpoint of the model, or a GGUF file of it."


@dataclass(frozen=True, slots=True)
class Scheme:
    """How a checkpoint is quantized: bits a weight, what is taken off stored zero points, rows and columns a scale."""

    kind: Kind
    bits: int = 8
    zero_shift: int = 0
    block: tuple[int, int] | None = None


def open_quantized(config: dict[str, Any], source: SafetensorsSource) -> tuple[dict[str, Any], Any]:
    """``config`` without its quantization and a source of plain tensors; both as given where nothing is quantized.

    A ``quantization_config`` over weights that are all stored as floats is left over from an earlier life of the model
    and says nothing.

    Raises:
        UnsupportedModelError: A method or layout that is not read.
        CheckpointError: Parts of a quantized tensor are missing or do not fit together.
    """
    text = config.get("text_config")
    holders = (config, text if isinstance(text, dict) else {})
    stated = next((found for holder in holders for key in _KEYS if (found := mapping(holder, key))), {})
    plain = {key: value for key, value in config.items() if key not in _KEYS}
    if isinstance(text, dict):
        plain["text_config"] = {key: value for key, value in text.items() if key not in _KEYS}
    kinds = {source.info(name).dtype for name in source.names()}
    if stated.get("quant_method") == "bitnet":
        return open_bitnet(config, source)
    if kinds <= {"F64", "F32", "F16", "BF16"} and not any(name.endswith("_packed") for name in source.names()):
        return plain, source
    if not stated:
        if kinds & set(_WHOLE[:2]):
            return plain, QuantizedTensors(source, Scheme("bytes"))
        return config, source
    if stated.get("quant_method") == "mxfp4":
        return plain, Mxfp4Tensors(source)
    return plain, QuantizedTensors(source, _scheme(stated))


def _scheme(stated: Mapping[str, Any]) -> Scheme:
    method = str(stated.get("quant_method", "unknown method"))
    bits = stated.get("bits", stated.get("w_bit", 4))
    _refuse_rotations(stated)
    if method in ("fp8", "fbgemm_fp8") or (method == "modelopt" and stated.get("quant_algo") == "FP8"):
        block = stated.get("weight_block_size")
        if block is None:
            return Scheme("bytes")
        if isinstance(block, list) and len(block) == 2 and all(type(size) is int and size > 0 for size in block):
            return Scheme("bytes", block=(block[0], block[1]))
        raise CheckpointError(f"config.json has weight_block_size = {block!r}; two sizes are expected.", hint=_HINT)
    # transformers 5 calls AWQ's ``version`` and GPTQ's ``checkpoint_format`` both ``format``.
    if method == "awq" and bits == 4 and str(stated.get("version") or stated.get("format") or "gemm").lower() == "gemm":
        return Scheme("awq", 4)
    if method == "gptq":
        layout = str(stated.get("checkpoint_format") or stated.get("format") or "gptq").lower()
        if bits in (2, 4, 8) and layout in ("gptq", "gptq_v2"):
            return Scheme("gptq", int(bits), int(layout == "gptq"))
        method = f"{method}, {layout}"
    if method == "compressed-tensors":
        layout = str(stated.get("format"))
        groups = [group for group in mapping(stated, "config_groups").values() if isinstance(group, dict)]
        if layout in ("float-quantized", "int-quantized", "naive-quantized"):
            return Scheme("bytes", block=_same_block([mapping(group, "weights") for group in groups]))
        known = [mapping(group, "weights").get("num_bits") for group in groups]
        packed = [one for one in known if isinstance(one, int) and one in (2, 4, 8)]
        if layout == "pack-quantized" and packed == known != []:
            return Scheme("packed", max(packed))
        method, bits = f"{method}, {layout}", ", ".join(str(one) for one in known) or bits
    raise UnsupportedModelError(
        f"The checkpoint is quantized by {method} with {bits} bits; expected fp8, mxfp4, awq (gemm, 4 bits), gptq (2, "
        "4, 8 bits) or compressed-tensors (pack-quantized, float-quantized, int-quantized).",
        hint=_HINT,
    )


def _same_block(weights: list[Mapping[str, Any]]) -> tuple[int, int] | None:
    """Rows and columns that share a scale, where all groups state the same block."""
    found = {tuple(stated) if isinstance(stated := one.get("block_structure"), list) else () for one in weights}
    block = found.pop() if len(found) == 1 else ()
    return block if len(block) == 2 and all(type(size) is int and size > 0 for size in block) else None


def _refuse_rotations(stated: Mapping[str, Any]) -> None:
    """Raise UnsupportedModelError where activations are rotated while the model runs (QuIP, SpinQuant): the weights
    alone are another model. Rotations of weights alone are in the weights."""
    rotations = mapping(mapping(stated, "transform_config"), "config_groups")
    applied = [one for scheme in rotations.values() if isinstance(scheme, dict) for one in scheme.get("apply") or ()]
    places = [str(one.get("location")) for one in applied if isinstance(one, dict)]
    if online := next((place for place in places if not place.startswith("weight_")), None):
        raise UnsupportedModelError(
            f"The checkpoint rotates activations at run time (transform_config, {online}), which is not supported.",
            hint=_HINT,
        )


class QuantizedTensors:
    """Float32 rows of the tensors that quantized ones stand for; everything else as it is stored."""

    def __init__(self, source: SafetensorsSource, scheme: Scheme) -> None:
        self._source = source
        self._scheme = scheme
        self._last: tuple[str, Floats] | None = None
        self._last_grid: tuple[str, Floats, Codes] | None = None
        names = set(source.names())
        mark = {"awq": ".qweight", "gptq": ".qweight", "packed": ".weight_packed", "bytes": ".weight"}[scheme.kind]
        self._modules = {
            f"{name.removesuffix(mark)}.weight": name.removesuffix(mark)
            for name in names
            if name.endswith(mark) and (scheme.kind != "bytes" or source.info(name).dtype in _WHOLE)
        }
        parts = {f"{module}.{part}" for module in self._modules.values() for part in _PARTS}
        parts |= {name for name in names if name.endswith(_NO_WEIGHTS)}
        self._plain = [name for name in source.names() if name not in parts and name not in self._modules]

    @property
    def paths(self) -> Any:
        """The weights files."""
        return self._source.paths

    def names(self) -> Iterable[str]:
        """Names of the plain tensors and of those that are dequantized."""
        return [*self._plain, *self._modules]

    def info(self, name: str) -> TensorInfo:
        """Header of ``name``; raises CheckpointError if there is none."""
        if name not in self._modules:
            return self._source.info(name)
        module = self._modules[name]
        stored = self._source.info(name).dtype if self._scheme.kind == "bytes" else self._scheme.kind.upper()
        return TensorInfo(name, self._shape(module), stored)

    def read_rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows ``start:stop`` as float32; raises CheckpointError on NaN, Inf and parts that do not fit together."""
        if name not in self._modules:
            return self._source.read_rows(name, start, stop)
        info = self.info(name)
        check_rows(info, start, stop)
        module = self._modules[name]
        if self._scheme.kind == "bytes":
            rows = self._bytes(module, start, stop)
        else:
            # Columns of the stored tensor are our rows: it is read whole, once for all slices.
            last = self._last
            if last is None or last[0] != name:
                self._last = last = (name, self._unpacked(module))
            rows = last[1][start:stop].copy()
        check_finite(rows, name, start, self._source.paths[0].name)
        return rows

    def grid(self, name: str) -> Grid | None:
        """The grid of ``name``, None for values of one byte and for groups of columns that do not lie side by side
        (act-order)."""
        if name not in self._modules or self._scheme.kind == "bytes":
            return None
        module = self._modules[name]
        bits = self._bits(module)
        k = self._shape(module)[1]
        scales, zero_points = self._grid(module)
        whole = scales.shape[1] > 0 and k % scales.shape[1] == 0
        if not whole or not self._in_order(module, scales.shape[1]) or not np.isfinite(scales).all():
            return None
        if zero_points.min() < 0 or zero_points.max() >= 1 << bits:
            return None  # GPTQ's first layout stores zero points less 1, and can mean 2^bits
        exact = np.array_equal(scales.astype(np.float16).astype(np.float32), scales)
        symmetric = bool((zero_points == 1 << (bits - 1)).all())
        return Grid(bits, k // scales.shape[1], symmetric, 16 if exact else 32)

    def read_grid(self, name: str, start: int, stop: int) -> tuple[Floats, npt.NDArray[np.uint8]]:
        """Scales and zero points of the rows ``start:stop``, see ``GridSource``."""
        scales, zero_points = self._grid(self._modules[name])
        return scales[start:stop], zero_points[start:stop].astype(np.uint8)

    def _grid(self, module: str) -> tuple[Floats, Codes]:
        """Scales float32 [N, groups] and zero points of the same shape, kept for the tensor that is being read."""
        last = self._last_grid
        if last is None or last[0] != module:
            n = self._shape(module)[0]
            if self._scheme.kind == "packed":
                scales = self._floats(f"{module}.weight_scale")
                scales = scales.reshape(len(scales), -1)
                zero_points = self._packed_zeros(module, scales.shape)
            else:
                scales = np.ascontiguousarray(self._floats(f"{module}.scales").T)
                zero_points = np.ascontiguousarray(self._zeros(module).T)
            if scales.shape != zero_points.shape or scales.shape[0] != n:
                raise _unfit(module, scales.shape, self._shape(module))
            self._last_grid = last = (module, scales, zero_points)
        return last[1], last[2]

    def _zeros(self, module: str) -> Codes:
        """Zero points [groups, N] of AWQ and GPTQ."""
        stored = self._whole(f"{module}.qzeros")
        if self._scheme.kind == "awq":
            return unpack(stored, 4, axis=1, order=_AWQ_ORDER)
        return unpack(stored, self._scheme.bits, axis=1) + self._scheme.zero_shift

    def _packed_zeros(self, module: str, shape: tuple[int, ...]) -> Codes:
        """Zero points of compressed-tensors, of the shape [N, groups] of the scales."""
        bits, name = self._bits(module), f"{module}.weight_zero_point"
        if name not in self._source.names():
            return np.full(shape, 1 << (bits - 1), np.int32)
        return unpack(self._whole(name), bits, axis=0)[: shape[0]]

    def _in_order(self, module: str, groups: int) -> bool:
        """Whether every group consists of neighbouring columns."""
        k = self._shape(module)[1]
        return np.array_equal(self._groups(module, k, groups), np.arange(k) // (k // groups))

    def _groups(self, module: str, k: int, groups: int) -> npt.NDArray[np.int64]:
        """The group int64 [k] of each column; raises CheckpointError for one that has no scale."""
        ours = self._scheme.kind in ("packed", "bytes")
        part, in_order = "weight_g_idx" if ours else "g_idx", np.arange(k) // -(-k // groups)
        if f"{module}.{part}" not in self._source.names():
            return in_order
        found = self._whole(f"{module}.{part}").astype(np.int64)
        if ours and (found == -1).any():  # never filled in: the groups are in order (compressed-tensors, forward.py)
            return in_order
        if found.shape != (k,) or found.min() < 0 or found.max() >= groups:
            raise _unfit(module, (groups,), self._shape(module))
        return found

    def close(self) -> None:
        """Close the files."""
        self._source.close()

    def _shape(self, module: str) -> tuple[int, int]:
        bits = self._scheme.bits
        if self._scheme.kind == "bytes":
            shape = self._source.info(f"{module}.weight").shape
            return shape[0], shape[1]
        if self._scheme.kind == "packed":
            packed, k = self._source.info(f"{module}.weight_packed").shape, self._columns(module)
            return packed[0], k or packed[1] * 32 // bits
        packed = self._source.info(f"{module}.qweight").shape
        per = 32 // bits
        return (packed[1] * per, packed[0]) if self._scheme.kind == "awq" else (packed[1], packed[0] * per)

    def _columns(self, module: str) -> int:
        """Columns of a matrix of compressed-tensors, whose last word may be filled up; 0: it does not say."""
        name = f"{module}.weight_shape"
        if name not in self._source.names():
            return 0
        if self._source.info(name).shape != (2,):
            raise CheckpointError(f"{name} is no pair of rows and columns.", hint=_HINT)
        return max(0, int(self._source.read_stored(name, 0, 2)[1]))

    def _bits(self, module: str) -> int:
        """Bits of a code: those of the scheme, or of compressed-tensors whose groups differ, by the matrix' size."""
        if self._scheme.kind != "packed" or not (k := self._columns(module)):
            return self._scheme.bits
        words = self._source.info(f"{module}.weight_packed").shape[1]
        return next((bits for bits in (2, 4, 8) if -(-k * bits // 32) == words), self._scheme.bits)

    def _bytes(self, module: str, start: int, stop: int) -> Floats:
        """Rows of a matrix of eight-bit floats or integers, with a scale for all, every row or every block."""
        name = f"{module}.weight"
        stored, dtype = self._source.read_stored(name, start, stop), self._source.info(name).dtype
        table = {"F8_E4M3": e4m3, "F8_E5M2": e5m2}.get(dtype)
        rows: Floats = stored.astype(np.float32) if table is None else table()[stored]
        inverse = f"{module}.weight_scale_inv"
        scale_name = inverse if inverse in self._source.names() else f"{module}.weight_scale"
        if scale_name not in self._source.names():
            if table is None:
                raise CheckpointError(f"The checkpoint has no {scale_name} for its integers.", hint=_HINT)
            return rows
        scales, (n, k) = self._small(scale_name), self._shape(module)
        if not scales.size:
            raise _unfit(module, scales.shape, (n, k))
        # Where no block is stated, all blocks are whole: a last one that is cut could belong to several sizes.
        block = self._scheme.block or (max(1, n // scales.shape[0]), max(1, k // scales.shape[1]))
        whole = self._scheme.block or (n % scales.shape[0], k % scales.shape[1]) == (0, 0)
        if scales.size > 1 and not (whole and (-(-n // block[0]), -(-k // block[1])) == scales.shape):
            raise _unfit(module, scales.shape, (n, k))

        def spread(values: Floats) -> Floats:
            if values.size == 1:
                return values
            by_row: Floats = values[np.arange(start, stop) // block[0]]
            return by_row if values.shape[1] == 1 else by_row[:, group]

        group = np.arange(k) // block[1]
        if f"{module}.weight_g_idx" in self._source.names():
            group = self._groups(module, k, scales.shape[1])
        if f"{module}.weight_zero_point" in self._source.names():
            rows -= spread(self._small(f"{module}.weight_zero_point"))
        rows *= spread(scales)
        return rows

    def _unpacked(self, module: str) -> Floats:
        if self._scheme.kind == "packed":
            return self._compressed(module)
        codes, scales, z = self._whole(f"{module}.qweight"), self._floats(f"{module}.scales"), self._zeros(module)
        bits, (n, k) = self._scheme.bits, self._shape(module)
        q = unpack(codes, 4, axis=1, order=_AWQ_ORDER) if self._scheme.kind == "awq" else unpack(codes, bits, axis=0)
        if q.shape != (k, n) or z.shape != scales.shape or scales.shape[1] != n or k % scales.shape[0]:
            raise _unfit(module, scales.shape, (n, k))
        group = self._groups(module, k, len(scales))
        return np.ascontiguousarray(((q - z[group]).astype(np.float32) * scales[group]).T)

    def _compressed(self, module: str) -> Floats:
        bits, (n, k) = self._bits(module), self._shape(module)
        scales, zero_points = self._grid(module)
        q = unpack(self._whole(f"{module}.weight_packed"), bits, axis=1)[:, :k]
        if q.shape != (n, k) or not scales.shape[1] or k % scales.shape[1]:
            raise _unfit(module, scales.shape, (n, k))
        group = self._groups(module, k, scales.shape[1])
        values: Floats = (q - zero_points[:, group]).astype(np.float32) * scales[:, group]
        return values

    def _whole(self, name: str) -> Codes:
        values = self._source.read_stored(name, 0, self._source.info(name).shape[0])
        return values.view(np.int32) if values.dtype.itemsize == 4 else values.astype(np.int32)

    def _floats(self, name: str) -> Floats:
        return self._source.read_rows(name, 0, self._source.info(name).shape[0])

    def _small(self, name: str) -> Floats:
        """Scales or zero points float32 [rows, columns], whatever their type; of one number [1, 1]."""
        info = self._source.info(name)
        raw = self._source.read_stored(name, 0, info.shape[0] if info.shape else 1)
        values: Floats = widen(raw) if info.dtype == "BF16" else raw.astype(np.float32)
        if info.dtype == "F8_E8M0":  # powers of two, stored as their exponents
            values = np.ldexp(np.float32(1), raw.astype(np.int32) - 127)
        return values.reshape(len(values), -1)


def _unfit(module: str, scales: tuple[int, ...], shape: tuple[int, int]) -> CheckpointError:
    return CheckpointError(
        f"The scales {list(scales)} of {module} do not fit its weight {list(shape)}.",
        hint="The checkpoint is damaged, or its quantization_config belongs to another one.",
    )
