"""From stored weights to ONNX nodes: the only place that knows how a number format becomes an operator.

Initializers are references into the weights file and are never loaded. Two initializers of different shapes may refer
to the same bytes: a tied quantized embedding is one region, seen as [N, blocks, bytes] by MatMulNBits and as
[N, blocks * bytes] by GatherBlockQuantized (its zero points then have MatMulNBits' packing too).

Must not know: model architectures, disk, how arrays are filled.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgedistill.quantize.spec import ArraySpec, WeightFormat

MICROSOFT = "com.microsoft"


class Planned(Protocol):
    """The part of a weight's plan that nodes depend on."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def format(self) -> WeightFormat: ...


class Stored(Protocol):
    """An array's place: ``offset`` in bytes inside the file ``location``, relative to the graph's directory."""

    @property
    def spec(self) -> ArraySpec: ...
    @property
    def location(self) -> str: ...
    @property
    def offset(self) -> int: ...


class GraphBuilder:
    """Collects nodes and initializers in order; every value gets the name of the node that makes it."""

    def __init__(self) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        *,
        domain: str = "",
        outputs: int = 1,
        **attributes: Any,
    ) -> tuple[ir.Value, ...]:
        """Append a node; its outputs are called ``name``, ``name.1``, and so on."""
        values = [ir.Value(name=name if i == 0 else f"{name}.{i}") for i in range(outputs)]
        self.nodes.append(ir.node(op_type, inputs, attributes, domain=domain, outputs=values, name=name))
        return tuple(values)

    def call(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, *, domain: str = "", **attributes: Any
    ) -> ir.Value:
        """Append a node with one output."""
        return self.op(op_type, inputs, name, domain=domain, **attributes)[0]

    def constant(self, name: str, array: np.ndarray[Any, Any]) -> ir.Value:
        """A small constant stored in the graph itself; asking twice for one name gives the same value."""
        if name not in self.initializers:
            self._add(name, ir.tensor(array, name=name))
        return self.initializers[name]

    def external(self, name: str, stored: Stored, shape: tuple[int, ...] | None = None) -> ir.Value:
        """An initializer that refers to ``stored``, seen as ``shape`` (its own by default)."""
        if name not in self.initializers:
            shape = stored.spec.shape if shape is None else shape
            if math.prod(shape) != math.prod(stored.spec.shape):
                raise ValueError(f"{stored.spec.name} of shape {stored.spec.shape} cannot be seen as {shape}")
            dtype = ir.DataType.from_numpy(np.dtype(stored.spec.dtype))
            nbytes = stored.spec.nbytes
            tensor = ir.ExternalTensor(stored.location, stored.offset, nbytes, dtype, shape=ir.Shape(shape), name=name)
            self._add(name, tensor)
        return self.initializers[name]

    def _add(self, name: str, tensor: ir.TensorProtocol) -> None:
        shape = ir.Shape(tensor.shape.numpy())
        self.initializers[name] = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)


class WeightEmitter:
    """Turns names of logical weights into nodes that use them.

    Args:
        plan: Shape and format of every matrix by weight name (vectors and tables need none).
        stored: Place of every array by array name (``array_specs``: ``name`` or ``name.q``, ``name.scales``,
            ``name.zero_points``).
    """

    def __init__(self, plan: Mapping[str, Planned], stored: Mapping[str, Stored]) -> None:
        self._plan = plan
        self._stored = stored

    def vector(self, b: GraphBuilder, name: str) -> ir.Value:
        """A norm or bias, float32 [N]."""
        return b.external(name, self._stored[name])

    def table(self, b: GraphBuilder, name: str) -> ir.Value:
        """A cos or sin table, float32 [positions, rotary/2]."""
        return b.external(name, self._stored[name])

    def linear(self, b: GraphBuilder, x: ir.Value, name: str, *, output: str, bias: str | None = None) -> ir.Value:
        """``x`` float32 [..., K] times the transposed matrix ``name`` [N, K], plus ``bias`` [N]: float32 [..., N]."""
        planned = self._plan[name]
        n, k = planned.shape
        fmt = planned.format
        offset = self.vector(b, bias) if bias else None
        if fmt.is_float:
            # The file keeps rows of outputs so that tensors stream row by row; the kernel packs the transposed
            # matrix when the session opens, as it would pack any other.
            weight = b.external(name, self._stored[name])
            name_product = f"{output}.product" if offset is not None else output
            product = b.call("FusedMatMul", [x, weight], name_product, domain=MICROSOFT, transB=1)
            return product if offset is None else b.call("Add", [product, offset], output)
        inputs: list[ir.Value | None] = [
            x,
            b.external(f"{name}.q", self._stored[f"{name}.q"]),
            b.external(f"{name}.scales", self._stored[f"{name}.scales"]),
            None if fmt.symmetric else b.external(f"{name}.zero_points", self._stored[f"{name}.zero_points"]),
        ]
        if offset is not None:
            inputs += [None, offset]
        elif fmt.symmetric:
            inputs.pop()
        return b.call(
            "MatMulNBits",
            inputs,
            output,
            domain=MICROSOFT,
            K=k,
            N=n,
            bits=fmt.bits,
            block_size=fmt.block_size,
            accuracy_level=fmt.accuracy_level,
        )

    def embedding(self, b: GraphBuilder, ids: ir.Value, name: str, *, output: str) -> ir.Value:
        """Rows ``ids`` int64 [B, S] of the matrix ``name`` [V, H]: float32 [B, S, H]."""
        planned = self._plan[name]
        n, k = planned.shape
        fmt = planned.format
        if fmt.is_float:
            return b.call("Gather", [b.external(name, self._stored[name]), ids], output, axis=0)
        blocks = fmt.blocks(k)
        padded = blocks * fmt.block_size
        # A separate initializer over the same bytes: a Reshape would be folded into a private copy of the matrix.
        data = b.external(f"{name}.rows", self._stored[f"{name}.q"], (n, padded * fmt.bits // 8))
        inputs = [data, ids, b.external(f"{name}.scales", self._stored[f"{name}.scales"])]
        if not fmt.symmetric:
            inputs.append(b.external(f"{name}.zero_points", self._stored[f"{name}.zero_points"]))
        rows = b.call(
            "GatherBlockQuantized",
            inputs,
            output if padded == k else f"{output}.padded",
            domain=MICROSOFT,
            bits=fmt.bits,
            block_size=fmt.block_size,
            gather_axis=0,
            quantize_axis=1,
        )
        if padded == k:
            return rows
        bounds = [
            b.constant(f"{output}.{part}", np.array([value], dtype=np.int64))
            for part, value in (("start", 0), ("stop", k), ("axis", 2))
        ]
        return b.call("Slice", [rows, *bounds], output)
