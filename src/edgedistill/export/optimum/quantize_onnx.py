"""Quantizes the matrix products of a float ONNX graph that another exporter built.

Products with a constant matrix (MatMul, Gemm, and MatMul with a transposed matrix) become MatMulNBits. The token
embedding becomes GatherBlockQuantized, over the same stored bytes if the output head is tied to it. Unlike the native
exporter this holds the whole float model in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgedistill.architecture.spec import LogicalWeight
from edgedistill.errors import UnsupportedModelError
from edgedistill.graph.builder import MICROSOFT
from edgedistill.quantize import quantize_rows
from edgedistill.quantize.plan import Plan, Rule, plan_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from edgedistill.progress import Progress
    from edgedistill.quantize.plan import PlannedWeight
    from edgedistill.quantize.spec import WeightFormat

_SMALLEST = 16
"""Matrices with fewer rows or columns than this are tables, not weights, and stay in float."""


@dataclass(slots=True)
class _Matrix:
    """A constant matrix and everything that uses it; ``transposed``: stored as [K, N] rather than [N, K]."""

    name: str
    value: ir.Value
    transposed: bool
    products: list[ir.Node] = field(default_factory=list)
    gathers: list[ir.Node] = field(default_factory=list)
    is_head: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        rows, columns = _dims(self.value)
        return (columns, rows) if self.transposed else (rows, columns)

    def rows(self) -> npt.NDArray[np.float32]:
        assert self.value.const_value is not None
        array = self.value.const_value.numpy().astype(np.float32, copy=False)
        return np.ascontiguousarray(array.T if self.transposed else array)

    def logical(self) -> LogicalWeight:
        if self.gathers:
            aliases: tuple[str, ...] = ("embed", "lm_head") if self.products else ("embed",)
            return LogicalWeight(self.name, "embedding", self.shape, (), aliases=aliases)
        return LogicalWeight(self.name, "linear", self.shape, (), aliases=("lm_head",) if self.is_head else ())


def quantize_graph(
    model: ir.Model, default: WeightFormat, rules: Sequence[Rule], *, vocab_size: int, progress: Progress
) -> Plan:
    """Quantize ``model`` in place and return the plan, float weights included.

    Args:
        model: A decoder with float32 initializers, as torch.onnx writes it.
        default: Format of matrices that no rule matches.
        rules: The first match wins; formats that ONNX Runtime's kernels cannot read directly are replaced by the
            nearest that they can (see ``_plain``). Names are module paths (``gpt_neox.layers.0.attention.dense``);
            ``embed`` and ``lm_head`` name the token embedding and the output head of any model.
        vocab_size: Rows of the token embedding.
        progress: Receives the elements of every weight.

    Raises:
        UnsupportedModelError: A weight of three dimensions or more, such as stacked experts.
    """
    matrices = {matrix.name: matrix for matrix in _find_matrices(model.graph, vocab_size)}
    weights = [matrix.logical() for matrix in matrices.values()]
    taken = {id(matrix.value) for matrix in matrices.values()}
    weights += [
        LogicalWeight(name, "norm", _dims(value) or (1,), ())
        for name, value in model.graph.initializers.items()
        if id(value) not in taken and value.dtype == ir.DataType.FLOAT
    ]
    if deep := next((weight for weight in weights if len(weight.shape) > 2), None):
        raise UnsupportedModelError(
            f"The weight {deep.name} has the shape {list(deep.shape)}; one or two dimensions are expected, not the "
            "stacked experts or convolutions of such a model.",
            hint="See what is known: edgedistill families",
        )
    plan = plan_weights(weights, _plain(default), [Rule(rule.match, _plain(rule.format)) for rule in rules])
    progress.begin("quantizing weights", plan.parameters, "items")
    for planned in plan.weights:
        matrix = matrices.get(planned.weight_name)
        if matrix is not None and not planned.format.is_float:
            _replace(model.graph, matrix, planned)
        progress.advance(planned.parameters)
    progress.end()
    model.graph.opset_imports[MICROSOFT] = 1
    _remove_unused(model)
    return plan


def _plain(fmt: WeightFormat) -> WeightFormat:
    """The nearest format without calibration or conversion when it is loaded: only the native exporter has those."""
    if fmt.is_float:
        return fmt
    return replace(fmt, bits=fmt.kernel_bits, scale_bits=32, method="search" if fmt.method == "gptq" else fmt.method)


def _find_matrices(graph: ir.Graph, vocab_size: int) -> Iterator[_Matrix]:
    found: dict[int, _Matrix] = {}
    logits = graph.outputs[0]
    for node in graph:
        constant, transposed = _constant_operand(node)
        if constant is None or min(_dims(constant)) < _SMALLEST:
            continue
        is_gather = node.op_type == "Gather"
        if is_gather and _dims(constant)[0] != vocab_size:
            continue  # positions, token types
        matrix = found.get(id(constant))
        if matrix is None:
            matrix = found[id(constant)] = _Matrix(_weight_name(constant, node), constant, transposed)
        elif matrix.transposed != transposed:
            continue
        (matrix.gathers if is_gather else matrix.products).append(node)
        matrix.is_head |= node.outputs[0] is logits
    for matrix in found.values():
        # A further user would still need the float matrix: quantizing would store it twice.
        if len(list(_final_users(matrix.value))) == len(matrix.products) + len(matrix.gathers):
            yield matrix


def _final_users(value: ir.Value) -> Iterator[ir.Node]:
    """Nodes that use ``value``, looking through a transposition."""
    for user, _ in value.uses():
        if user.op_type == "Transpose":
            yield from _final_users(user.outputs[0])
        else:
            yield user


def _constant_operand(node: ir.Node) -> tuple[ir.Value | None, bool]:
    """The constant matrix that ``node`` multiplies by or gathers from, and whether it is stored as [K, N]."""
    if node.domain not in ("", "ai.onnx") or len(node.inputs) < 2:
        return None, False
    if node.op_type == "Gather":
        axis = node.attributes.get_int("axis", 0)
        return (_as_matrix(node.inputs[0]) if axis == 0 else None), False
    if node.op_type == "MatMul":
        operand = node.inputs[1]
        producer = operand.producer() if operand is not None else None
        if producer is not None and producer.op_type == "Transpose":
            return _as_matrix(producer.inputs[0]), False
        return _as_matrix(operand), True
    if node.op_type == "Gemm":
        plain = node.attributes.get_float("alpha", 1.0) == 1.0 and node.attributes.get_int("transA", 0) == 0
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        plain &= bias is None or (node.attributes.get_float("beta", 1.0) == 1.0 and len(_dims(bias)) == 1)
        return (_as_matrix(node.inputs[1]) if plain else None), node.attributes.get_int("transB", 0) == 0
    return None, False


def _as_matrix(value: ir.Value | None) -> ir.Value | None:
    if value is None or not value.is_initializer() or value.dtype != ir.DataType.FLOAT or len(_dims(value)) != 2:
        return None
    return value


def _dims(value: ir.Value) -> tuple[int, ...]:
    return tuple(value.shape.numpy()) if value.shape is not None and value.shape.is_static() else ()


def _weight_name(value: ir.Value, node: ir.Node) -> str:
    """Module path: from the parameter's name, or from the node's where the exporter folded a transposition."""
    name = value.name or ""
    if "::" not in name:
        return name.removesuffix(".weight")
    return ".".join((node.name or name).strip("/").split("/")[:-1])


def _replace(graph: ir.Graph, matrix: _Matrix, planned: PlannedWeight) -> None:
    fmt = planned.format
    n, k = matrix.shape
    arrays = {suffix: np.asarray(array) for suffix, array in quantize_rows(matrix.rows(), fmt).items()}
    values: dict[str, ir.Value] = {}

    def stored(suffix: str, shape: tuple[int, ...] | None = None, name: str | None = None) -> ir.Value:
        key = name or suffix
        if key not in values:
            array = arrays[suffix] if shape is None else arrays[suffix].reshape(shape)
            tensor = ir.tensor(array, name=f"{matrix.name}.{key}")
            value = ir.Value(
                name=tensor.name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
            )
            graph.register_initializer(value)
            values[key] = value
        return values[key]

    scales, zero_points = stored("scales"), None if fmt.symmetric else stored("zero_points")
    for node in matrix.products:
        bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        inputs = [node.inputs[0], stored("q"), scales, zero_points, None, bias]
        attributes = {"K": k, "N": n, "bits": fmt.bits, "block_size": fmt.block_size}
        _turn_into(node, "MatMulNBits", inputs, attributes | {"accuracy_level": fmt.accuracy_level})
    padded = fmt.blocks(k) * fmt.block_size
    for node in matrix.gathers:
        data = stored("q", (n, padded * fmt.bits // 8), "rows")
        inputs = [data, node.inputs[1], scales, zero_points]
        attributes = {"bits": fmt.bits, "block_size": fmt.block_size, "gather_axis": 0, "quantize_axis": 1}
        _turn_into(node, "GatherBlockQuantized", inputs, attributes)
        if padded != k:
            _cut_last_axis(graph, node, k)


def _turn_into(node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], attributes: dict[str, int]) -> None:
    """Change ``node`` in place: its outputs, and so its users, stay as they are."""
    while inputs and inputs[-1] is None:
        inputs = inputs[:-1]
    node.resize_inputs(len(inputs))
    for index, value in enumerate(inputs):
        node.replace_input_with(index, value)
    node.op_type, node.domain = op_type, MICROSOFT
    node.attributes.clear()
    for name, number in attributes.items():
        node.attributes[name] = ir.AttrInt64(name, number)


def _cut_last_axis(graph: ir.Graph, node: ir.Node, size: int) -> None:
    """Drop the padding behind the first ``size`` elements of the node's output."""
    output = node.outputs[0]
    users = list(output.uses())
    bounds = []
    for part, number in (("start", 0), ("stop", size), ("axis", -1)):
        tensor = ir.tensor(np.array([number], dtype=np.int64), name=f"{output.name}.{part}")
        value = ir.Value(
            name=tensor.name, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64), const_value=tensor
        )
        graph.register_initializer(value)
        bounds.append(value)
    cut = ir.node("Slice", [output, *bounds], name=f"{node.name}.cut")
    cut.outputs[0].name = f"{output.name}.cut"
    graph.insert_after(node, cut)
    for user, index in users:
        user.replace_input_with(index, cut.outputs[0])
    output.shape = None


def _remove_unused(model: ir.Model) -> None:
    import onnx_ir.passes.common as passes

    passes.RemoveUnusedNodesPass()(model)
