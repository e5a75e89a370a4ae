"""Number formats of weights: what a tensor looks like once it is stored.

Pure data and arithmetic on shapes; the algorithms that fill the arrays live beside this file.

Must not know: graphs, disk, profile names, model architectures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

BLOCK_SIZES = (16, 32, 64, 128, 256)
KV_BITS = {"float32": 32, "int8": 8, "int4": 4}
"""Bits per key or value in every format of the KV cache."""
Method = Literal["rtn", "search"]


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How one weight matrix is stored.

    Attributes:
        bits: 32 (float32, ``block_size`` and the rest unused), 8, 4 or 2.
        block_size: Elements along K that share one scale.
        symmetric: True: zero point fixed at 2^(bits-1) and not stored; False: uint8 zero points stored.
        method: ``rtn`` (min/max round to nearest) or ``search`` (scale search by weighted squared error).
        accuracy_level: MatMulNBits attribute; 4 quantizes activations to int8 per block, 1 keeps float32, 0 lets
            the kernel choose.
    """

    bits: int = 4
    block_size: int = 32
    symmetric: bool = False
    method: Method = "search"
    accuracy_level: int = 4

    @property
    def is_float(self) -> bool:
        return self.bits == 32

    def blocks(self, k: int) -> int:
        """Number of blocks that cover ``k`` input features (the last one padded with zeros)."""
        return math.ceil(k / self.block_size)

    def bits_per_weight(self, k: int) -> float:
        """Stored bits per weight for a row of ``k`` elements, scales (float32) and zero points included."""
        if self.is_float:
            return 32.0
        return 8 * sum(a.nbytes for a in array_specs("w", (1, k), self)) / k

    def label(self) -> str:
        """Text form in profiles, tables and ``--format`` (read by ``plan.parse_format``): ``int4-b32-asym-search``."""
        if self.is_float:
            return "fp32"
        accuracy = "" if self.accuracy_level == 4 else f"-acc{self.accuracy_level}"
        return f"int{self.bits}-b{self.block_size}-{'sym' if self.symmetric else 'asym'}-{self.method}{accuracy}"


FLOAT32 = WeightFormat(bits=32)


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """One stored array: ``name``, numpy ``dtype`` name and ``shape``."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        itemsize = {"float32": 4, "uint8": 1, "int8": 1, "int32": 4, "int64": 8}[self.dtype]
        return itemsize * math.prod(self.shape)


def array_specs(name: str, shape: tuple[int, int], fmt: WeightFormat) -> tuple[ArraySpec, ...]:
    """Arrays that store a matrix of ``shape`` [N, K] in ``fmt`` (layout of ONNX Runtime's MatMulNBits).

    float32: ``name`` float32 [N, K]. Quantized: ``name.q`` uint8 [N, ceil(K/block), block*bits/8], ``name.scales``
    float32 [N, ceil(K/block)] and, if asymmetric, ``name.zero_points`` uint8 [N, ceil(blocks*bits/8)], low bits first.
    Every array has N as its first axis, so that a slice of rows of the matrix is a slice of rows of each array.
    """
    n, k = shape
    if fmt.is_float:
        return (ArraySpec(name, "float32", (n, k)),)
    blocks = fmt.blocks(k)
    specs = [
        ArraySpec(f"{name}.q", "uint8", (n, blocks, fmt.block_size * fmt.bits // 8)),
        ArraySpec(f"{name}.scales", "float32", (n, blocks)),
    ]
    if not fmt.symmetric:
        specs.append(ArraySpec(f"{name}.zero_points", "uint8", (n, math.ceil(blocks * fmt.bits / 8))))
    return tuple(specs)
