"""Nodes and initializers of an ONNX graph in the order in which they are made.

Initializers are references into a weights file and are never loaded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.quantize.spec import ArraySpec

MICROSOFT = "com.microsoft"
_NOWHERE = 1 << 60


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
        self._made: dict[str, tuple[ir.Value, ...]] = {}

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

    def once(self, op_type: str, inputs: Sequence[ir.Value | None], name: str, **attributes: Any) -> ir.Value:
        """Like ``call`` for work on weights: asking twice for one name gives the same value."""
        return self.once_many(op_type, inputs, name, 1, **attributes)[0]

    def once_many(
        self, op_type: str, inputs: Sequence[ir.Value | None], name: str, outputs: int, **attributes: Any
    ) -> tuple[ir.Value, ...]:
        """``once`` with several outputs."""
        if name not in self._made:
            self._made[name] = self.op(op_type, inputs, name, outputs=outputs, **attributes)
        return self._made[name]

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

    def supplied(
        self, name: str, location: str, shape: tuple[int, ...], dtype: ir.DataType = ir.DataType.UINT8
    ) -> ir.Value:
        """An initializer that is handed over when the graph is opened.

        It lies beyond the end of every file, so that opening the graph without it is an error; ONNX Runtime wants the
        file ``location`` to exist all the same.
        """
        if name not in self.initializers:
            size = math.prod(shape) * int(dtype.itemsize)
            tensor = ir.ExternalTensor(location, _NOWHERE, size, dtype, shape=ir.Shape(shape), name=name)
            self._add(name, tensor)
        return self.initializers[name]

    def _add(self, name: str, tensor: ir.TensorProtocol) -> None:
        shape = ir.Shape(tensor.shape.numpy())
        self.initializers[name] = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
