"""From stored weights to ONNX nodes: the only place that knows how a number format becomes an operator.

Initializers are references into the weights file and are never loaded. Two initializers of different shapes may refer
to the same bytes: a tied quantized embedding is one region, seen as [N, blocks, bytes] by MatMulNBits and as
[N, blocks * bytes] by GatherBlockQuantized (its zero points then have MatMulNBits' packing too).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import onnx_ir as ir

from edgedistill.bundle.bit_planes import WidenedScales
from edgedistill.graph import bit_planes as emit_planes
from edgedistill.graph import experts as emit_experts
from edgedistill.graph import offsets as emit_offsets
from edgedistill.graph import w8a8 as emit_w8a8
from edgedistill.graph.builder import MICROSOFT, GraphBuilder, Stored

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.architecture.spec import ExpertsSpec
    from edgedistill.bundle.bit_planes import WidenedMatrix
    from edgedistill.quantize.spec import WeightFormat


class Planned(Protocol):
    """The part of a weight's plan that nodes depend on."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def format(self) -> WeightFormat: ...


class WeightEmitter:
    """Turns names of logical weights into nodes that use them.

    Args:
        plan: Shape and format of every matrix by weight name (vectors need none).
        stored: Place of every array by array name (see ``quantize.spec.array_specs``).
        supply: Leave matrices whose codes lie in planes to whoever opens the graph (see ``supplied``), instead of
            putting them together by nodes.
        supply_scales: So too scales in fewer than 32 bits, of matrices that are only multiplied (``supplied_scales``).
    """

    def __init__(
        self,
        plan: Mapping[str, Planned],
        stored: Mapping[str, Stored],
        *,
        supply: bool = False,
        supply_scales: bool = False,
    ) -> None:
        self._plan = plan
        self._stored = stored
        self._supplied: dict[str, WidenedMatrix] | None = {} if supply else None
        self._scales: dict[str, WidenedScales] | None = {} if supply_scales else None
        self._looked_up: set[str] = set()

    @property
    def supplied(self) -> tuple[WidenedMatrix, ...]:
        """The matrices used so far that have to be supplied."""
        return tuple((self._supplied or {}).values())

    @property
    def supplied_scales(self) -> tuple[WidenedScales, ...]:
        """The scales used so far that have to be supplied."""
        return tuple((self._scales or {}).values())

    def vector(self, b: GraphBuilder, name: str) -> ir.Value:
        """A norm or bias, float32 [N]."""
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
        if fmt.is_w8a8:
            codes, scales, sums = self._channels(b, name, fmt)
            return emit_w8a8.product(b, x, codes, scales, sums, name=name, shape=(n, k), output=output, bias=offset)
        codes, scales, zero_points = self._operands(b, name, fmt)
        if fmt.offsets:
            x = emit_offsets.with_means(b, x, fmt, k)
        inputs: list[ir.Value | None] = [x, codes, scales, zero_points]
        if offset is not None:
            inputs += [None, offset]
        elif fmt.symmetric:
            inputs.pop()
        return b.call(
            "MatMulNBits",
            inputs,
            output,
            domain=MICROSOFT,
            K=fmt.columns(k),
            N=n,
            bits=fmt.kernel_bits,
            block_size=fmt.block_size,
            accuracy_level=fmt.accuracy_level,
        )

    def experts(
        self, b: GraphBuilder, x: ir.Value, logits: ir.Value, name: str, experts: ExpertsSpec, *, output: str
    ) -> ir.Value:
        """The experts ``name`` of ``x`` float32 [B, S, H], chosen by router ``logits`` float32 [B * S, E]."""
        fmt = self._plan[f"{name}.gate_up"].format
        operands: list[ir.Value | None] = [x, logits]
        zero_points: list[ir.Value | None] = []
        for role in ("gate_up", "down"):
            matrix = f"{name}.{role}"
            rows, k = self._plan[matrix].shape
            shape = (experts.count, rows // experts.count)
            bias = None
            if experts.bias:
                bias = b.external(f"{matrix}.bias", self._stored[f"{matrix}.bias"], shape)
            if fmt.is_float:
                operands += [b.external(matrix, self._stored[matrix], (*shape, k)), bias]
                continue
            codes, scales, zeros = self._operands(b, matrix, self._plan[matrix].format, shape)
            operands += [codes, scales, bias]
            zero_points.append(zeros)
        attributes = emit_experts.attributes(experts)
        if not fmt.is_float:
            operands += [None] * (11 - len(operands)) + zero_points
            attributes |= {
                "expert_weight_bits": fmt.kernel_bits,
                "block_size": fmt.block_size,
                "accuracy_level": fmt.accuracy_level,
                "weights_prepacked": 0,
            }
        while operands[-1] is None:
            operands.pop()
        return b.call("MoE" if fmt.is_float else "QMoE", operands, output, domain=MICROSOFT, **attributes)

    def _channels(self, b: GraphBuilder, name: str, fmt: WeightFormat) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        """Codes, scales and, for activations with zero points, sums of a W8A8 matrix."""
        names = ("q", "scales") if fmt.symmetric else ("q", "scales", "sums")
        found = [b.external(f"{name}.{suffix}", self._stored[f"{name}.{suffix}"]) for suffix in names]
        return found[0], found[1], None if fmt.symmetric else found[2]

    def embedding(self, b: GraphBuilder, ids: ir.Value, name: str, *, output: str) -> ir.Value:
        """Rows ``ids`` int64 [B, S] of the matrix ``name`` [V, H]: float32 [B, S, H]."""
        planned = self._plan[name]
        n, k = planned.shape
        fmt = planned.format
        if fmt.is_float:
            return b.call("Gather", [b.external(name, self._stored[name]), ids], output, axis=0)
        if fmt.is_w8a8:
            codes, scales, _ = self._channels(b, name, fmt)
            return emit_w8a8.rows(b, ids, codes, scales, output=output)
        padded = fmt.blocks(k) * fmt.block_size
        self._looked_up.add(name)
        codes, scales, zero_points = self._operands(b, name, fmt)
        if len(fmt.planes) > 1:
            rows = emit_planes.rows(
                b, ids, codes, scales, zero_points, name=name, shape=(n, k), fmt=fmt, output=output,
                flat=output if padded == k else f"{output}.padded",
            )  # fmt: skip
        else:
            # Another initializer over the same bytes: a Reshape would be folded into a private copy of the matrix.
            data = b.external(f"{name}.rows", self._stored[f"{name}.q"], (n, padded * fmt.bits // 8))
            rows = b.call(
                "GatherBlockQuantized",
                [data, ids, scales] + ([] if zero_points is None else [zero_points]),
                output if padded == k else f"{output}.padded",
                domain=MICROSOFT,
                bits=fmt.bits,
                block_size=fmt.block_size,
                gather_axis=0,
                quantize_axis=1,
            )
        if padded == k:
            return rows
        if fmt.offsets:
            return emit_offsets.added(b, rows, fmt, k, output=output)
        bounds = [
            b.constant(f"{output}.{part}", np.array([value], dtype=np.int64))
            for part, value in (("start", 0), ("stop", k), ("axis", 2))
        ]
        return b.call("Slice", [rows, *bounds], output)

    def _operands(
        self, b: GraphBuilder, name: str, fmt: WeightFormat, by_expert: tuple[int, int] | None = None
    ) -> tuple[ir.Value, ir.Value, ir.Value | None]:
        """Codes, scales and zero points of a quantized matrix as the kernels want them.

        Scales in fewer bits are supplied, or widened by nodes over constants, which ONNX Runtime folds on loading: so
        those of rows that are looked up and of experts, which stay in use. ``by_expert``: experts and rows of each,
        which MoE's kernels want as two axes, and blocks of a row in one.
        """

        def stored(suffix: str) -> ir.Value:
            place = self._stored[f"{name}.{suffix}"]
            shape = None if by_expert is None else (*by_expert, *place.spec.shape[1:])
            return b.external(f"{name}.{suffix}", place, shape)

        if self._scales is not None and fmt.widens_scales and by_expert is None and name not in self._looked_up:
            self._scales[name] = wide = self._widened_scales(name, fmt)
            scales = b.supplied(wide.initializer, wide.location, wide.initializer_shape, ir.DataType.FLOAT)
        else:
            scales = stored("scales")
            if fmt.widens_scales:
                scales = b.once("Cast", [scales], f"{name}.scales.wide", to=ir.DataType.FLOAT)
            if fmt.scale_bits == 8:
                scales = b.once("Mul", [scales, stored("scale_unit")], f"{name}.scales.product")
        zero_points = None if fmt.symmetric else stored("zero_points")
        return self._codes(b, name, fmt, by_expert), scales, zero_points

    def _widened_scales(self, name: str, fmt: WeightFormat) -> WidenedScales:
        suffixes = ("scales", "scale_unit") if fmt.scale_bits == 8 else ("scales",)
        places = [self._stored[f"{name}.{suffix}"] for suffix in suffixes]
        offsets = tuple(place.offset for place in places)
        n, k = self._plan[name].shape
        return WidenedScales(f"{name}.scales.widened", (n, k), fmt, places[0].location, offsets)

    def _codes(self, b: GraphBuilder, name: str, fmt: WeightFormat, by_expert: tuple[int, int] | None) -> ir.Value:
        """uint8 [N, blocks, block * kernel_bits / 8]; by expert: [E, rows, K * kernel_bits / 8]."""
        n, k = self._plan[name].shape
        shape = None if by_expert is None else (*by_expert, k * fmt.kernel_bits // 8)
        if len(fmt.planes) == 1:
            return b.external(f"{name}.q", self._stored[f"{name}.q"], shape)
        planes = [self._stored[f"{name}.q{width}"] for width in fmt.planes]
        if self._supplied is not None:
            experts = 0 if by_expert is None else by_expert[0]
            self._supplied[name] = emit_planes.supplied_matrix(name, (n, k), fmt, planes, experts)
            return emit_planes.supplied(b, self._supplied[name])
        codes = emit_planes.unpacked(b, name, (n, k), fmt, planes)
        if shape is None:
            return codes
        sizes = b.constant(f"{name}.q.shape", np.array(shape, np.int64))
        return b.once("Reshape", [codes, sizes], f"{name}.q.by_expert")
