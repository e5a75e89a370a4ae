"""The light reader of external data finds what onnx itself would read, wherever a tensor lies in a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.bundle.external_data import CHILDREN, external_locations
from edgedistill.errors import BundleError


def external(location: str) -> TensorProto:
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "w")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "8")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def leads_to_tensors(message: Any, seen: tuple[str, ...] = ()) -> bool:
    if message.name in ("TensorProto", *seen):
        return bool(message.name == "TensorProto")
    below = (field.message_type for field in message.fields if field.message_type)
    return any(leads_to_tensors(other, (*seen, message.name)) for other in below)


def test_every_place_of_a_tensor_in_onnx_is_known() -> None:
    """The table of fields is compared with onnx's own schema: a new place in a later version fails here."""
    found: dict[str, dict[int, str]] = {"TensorProto": {13: "StringStringEntryProto"}}
    pending = [onnx.ModelProto.DESCRIPTOR]
    while pending:
        message = pending.pop()
        if message.name in found:
            continue
        fields = {f.number: f.message_type for f in message.fields if f.message_type}
        fields = {number: other for number, other in fields.items() if leads_to_tensors(other)}
        found[message.name] = {number: other.name for number, other in fields.items()}
        pending += fields.values()
    assert found == CHILDREN
    assert onnx.TensorProto.DESCRIPTOR.fields_by_name["external_data"].number == 13


def test_locations_anywhere_in_a_graph() -> None:
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=external("in-a-constant"))],
        "inner", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [2])], [external("in-a-branch")],
    )  # fmt: skip
    node = helper.make_node("If", ["condition"], ["y"], then_branch=inner, else_branch=inner)
    graph = helper.make_graph([node], "outer", [], [], [external("weights.bin"), external("../outside")])
    function = helper.make_function(
        "local", "f", [], ["c"], [helper.make_node("Constant", [], ["c"], value=external("in-a-function"))],
        [helper.make_opsetid("", 21)],
    )  # fmt: skip
    model = helper.make_model(graph, functions=[function])
    found = external_locations(model.SerializeToString(), "model.onnx")
    assert found == {"in-a-constant", "in-a-branch", "weights.bin", "../outside", "in-a-function"}


def test_data_within_the_graph_has_no_location() -> None:
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(np.zeros(3, np.float32), "w")])
    assert external_locations(helper.make_model(graph).SerializeToString(), "model.onnx") == frozenset()


@pytest.mark.parametrize("content", [b"not a graph", b"\x3a\xff\x01", b"\x3a", b"\x80" * 12, b"\x09\x00"])
def test_bytes_that_are_no_graph_are_a_bundle_error(content: bytes) -> None:
    with pytest.raises(BundleError, match=r"model\.onnx is not an ONNX graph"):
        external_locations(content, "model.onnx")


def test_nesting_without_end_is_refused() -> None:
    content = b"location"
    # GraphProto.node, its attribute, the attribute's graph, and so on; ModelProto.graph around all.
    for key in (*[0x32, 0x2A, 0x0A] * 50, 0x3A):
        length, size = len(content), bytearray()
        while length > 0x7F:
            size.append(length & 0x7F | 0x80)
            length >>= 7
        content = bytes([key, *size, length]) + content
    with pytest.raises(BundleError, match="nested too deeply"):
        external_locations(content, "model.onnx")
