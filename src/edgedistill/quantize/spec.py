"""Number formats of weights: what a tensor looks like once it is stored.

Pure data and arithmetic on shapes; the algorithms that fill the arrays live beside this file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from edgedistill.schema import limits

BLOCK_SIZES = (16, 32, 64, 128, 256)
KV_BITS = {"float32": 32, "int8": 8, "int4": 4}
"""Bits per key or value in every format of the KV cache."""
STORED_BITS = (2, 3, 4, 5, 6, 8)
"""Bits per code in the file. 3, 5 and 6 bits lie there as planes of 4, 2 and 1 bits and are put together on loading."""
SCALE_BITS = (32, 16, 8)
PLANES: dict[int, tuple[int, ...]] = {3: (2, 1), 5: (4, 1), 6: (4, 2)}
"""Planes of codes, low bits first, where no kernel multiplies codes of that width."""
Method = Literal["rtn", "search", "gptq", "kept"]


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How one weight matrix is stored.

    Attributes:
        bits: 32 (float32, ``block_size`` and the rest unused), 8, 6, 5, 4, 3 or 2: what a code takes in the file.
        block_size: Elements along K that share one scale.
        symmetric: True: zero point fixed at 2^(bits-1) and not stored; False: uint8 zero points stored.
        method: ``rtn`` (min/max round to nearest), ``search`` (scale search by weighted squared error) or ``gptq``
            (least error of the layer's output on calibration data; without such data the same as ``search``);
            ``kept``: codes and scales are those of the source, which was quantized already.
        accuracy_level: MatMulNBits attribute; 4 quantizes activations to int8 per block, 1 keeps float32, 0 lets
            the kernel choose.
        scale_bits: How scales are stored: 32 (float32), 16 (float16), or 8 (a fraction of the row's largest, which is
            float32). They are float32 once loaded: ONNX Runtime folds the conversion when a session opens.
        activation_bits: 8: W8A8, where ``bits`` is 8, ``block_size``, ``scale_bits`` and ``accuracy_level`` are unused,
            weights are symmetric with one scale per output channel, and ``symmetric`` speaks of the activations (their
            zero point is 128, or one per token). 32: weight-only.
        offsets: Of a source whose blocks have a scale and an offset that is no multiple of it: a value is (code - zero
            point) * scale + offset. Behind the K codes of a row lies one for every block's offset, times the block
            size, in blocks of their own; the kernel multiplies them with the means of the blocks of the input.
    """

    bits: int = field(default=4, metadata=limits(choices=(32, *STORED_BITS)))
    block_size: int = field(default=32, metadata=limits(low=1, high=1 << 20))
    symmetric: bool = False
    method: Method = "search"
    accuracy_level: int = field(default=4, metadata=limits(choices=(0, 1, 4)))
    scale_bits: int = field(default=16, metadata=limits(choices=SCALE_BITS))
    activation_bits: int = field(default=32, metadata=limits(choices=(32, 8)))
    offsets: bool = False

    @property
    def is_w8a8(self) -> bool:
        """Weights with one scale per output channel, activations rounded to 8 bits per token."""
        return self.activation_bits == 8

    @property
    def kernel_bits(self) -> int:
        """Bits of the codes that the kernel multiplies: the next width that it knows."""
        return {3: 4, 5: 8, 6: 8}.get(self.bits, self.bits)

    @property
    def planes(self) -> tuple[int, ...]:
        """Widths of the planes that store the codes, low bits first; a single one where the kernel knows the width."""
        return PLANES.get(self.bits, (self.bits,))

    @property
    def is_float(self) -> bool:
        return self.bits == 32

    @property
    def widens_scales(self) -> bool:
        """Whether kernels take other scales than the file has: float32 instead of fewer bits."""
        return not self.is_float and not self.is_w8a8 and self.scale_bits != 32

    def columns(self, k: int) -> int:
        """Columns of the stored matrix for ``k`` input features: with ``offsets`` one more for each block."""
        return k + math.ceil(k / self.block_size) if self.offsets else k

    def blocks(self, k: int) -> int:
        """Number of blocks that cover the columns for ``k`` input features (the last one padded with zeros)."""
        return math.ceil(self.columns(k) / self.block_size)

    def bits_per_weight(self, k: int) -> float:
        """Stored bits per weight for a row of ``k`` elements, scales and zero points included."""
        if self.is_float:
            return 32.0
        return 8 * sum(a.nbytes for a in array_specs("w", (1, k), self)) / k

    def label(self) -> str:
        """Text form in profiles, tables and ``--format`` (read by ``plan.parse_format``): ``int4-b32-asym-search``."""
        if self.is_float:
            return "fp32"
        if self.is_w8a8:
            return f"w8a8-{'sym' if self.symmetric else 'asym'}-{self.method}"
        accuracy = "" if self.accuracy_level == 4 else f"-acc{self.accuracy_level}"
        scales = "" if self.scale_bits == 16 else f"-s{self.scale_bits}"
        symmetry = "sym" if self.symmetric else "asym"
        offsets = "-offsets" if self.offsets else ""
        return f"int{self.bits}-b{self.block_size}-{symmetry}-{self.method}{offsets}{scales}{accuracy}"

    @property
    def activations(self) -> str:
        """How the kernel takes activations, in words; the deployed ``accuracy_level`` among them."""
        if self.is_float:
            return "float32"
        if self.is_w8a8:
            return "8 bits per token (w8a8)"
        return {
            4: "8 bits per block (accuracy_level 4)",
            1: "float32 (accuracy_level 1)",
            0: "as the kernel chooses (accuracy_level 0)",
        }[self.accuracy_level]


FLOAT32 = WeightFormat(bits=32)
W8A8 = WeightFormat(bits=8, symmetric=False, activation_bits=8)


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One stored array: ``name``, numpy ``dtype`` name and ``shape``."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        itemsize = {"float32": 4, "float16": 2, "uint8": 1, "int8": 1, "int32": 4, "int64": 8}[self.dtype]
        return itemsize * math.prod(self.shape)


def array_specs(name: str, shape: tuple[int, int], fmt: WeightFormat) -> tuple[ArraySpec, ...]:
    """Arrays that store a matrix of ``shape`` [N, K] in ``fmt``.

    float32: ``name`` float32 [N, K]. Quantized, in the layout of ONNX Runtime's MatMulNBits where it has one:

    - ``name.q`` uint8 [N, blocks, block*bits/8], codes low bits first; or, where codes lie in planes, ``name.q4``,
      ``name.q2``, ``name.q1`` uint8 [N, blocks, block*plane/8] (see ``packing.pack_plane``);
    - ``name.scales`` float32 or float16 [N, blocks]; with ``scale_bits`` 8 uint8 (symmetric: int8) [N, blocks], to be
      multiplied by ``name.scale_unit`` float32 [N, 1];
    - if asymmetric, ``name.zero_points`` uint8 [N, ceil(blocks*kernel_bits/8)], low bits first.

    W8A8: ``name.q`` uint8 [N, K], ``name.scales`` float32 [N] and, for activations with zero points, ``name.sums``
    float32 [N] (see ``w8a8.py``).

    Every array has N as its first axis, so that a slice of rows of the matrix is a slice of rows of each array.
    """
    n, k = shape
    if fmt.is_float:
        return (ArraySpec(name, "float32", (n, k)),)
    if fmt.is_w8a8:
        codes = [ArraySpec(f"{name}.q", "uint8", (n, k)), ArraySpec(f"{name}.scales", "float32", (n,))]
        return tuple(codes) if fmt.symmetric else (*codes, ArraySpec(f"{name}.sums", "float32", (n,)))
    blocks = fmt.blocks(k)
    if len(fmt.planes) == 1:
        specs = [ArraySpec(f"{name}.q", "uint8", (n, blocks, fmt.block_size * fmt.bits // 8))]
    else:
        specs = [ArraySpec(f"{name}.q{w}", "uint8", (n, blocks, fmt.block_size * w // 8)) for w in fmt.planes]
    if fmt.scale_bits == 8:
        specs += [
            ArraySpec(f"{name}.scales", "int8" if fmt.symmetric else "uint8", (n, blocks)),
            ArraySpec(f"{name}.scale_unit", "float32", (n, 1)),
        ]
    else:
        specs.append(ArraySpec(f"{name}.scales", f"float{fmt.scale_bits}", (n, blocks)))
    if not fmt.symmetric:
        specs.append(ArraySpec(f"{name}.zero_points", "uint8", (n, math.ceil(blocks * fmt.kernel_bits / 8))))
    return tuple(specs)
