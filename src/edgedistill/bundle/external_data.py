"""Which files an ONNX graph makes ONNX Runtime read: the locations of external data, from the protobuf's bytes.

The runtime does not import onnx, and a reader of the whole format is not needed: a tensor can lie only in the fields
below (onnx.proto3: ModelProto, TrainingInfoProto, FunctionProto, GraphProto, NodeProto, AttributeProto,
SparseTensorProto, TensorProto), everything else is skipped by its length. A field that occurs twice counts twice,
which covers whatever a parser makes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

CHILDREN: dict[str, dict[int, str]] = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto", 6: "GraphProto", 10: "TensorProto", 11: "GraphProto",
        22: "SparseTensorProto", 23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}  # fmt: skip
"""By message: the fields that may hold a tensor, or of a tensor the entries that say where its data lies."""

_DEEPEST = 100
"""Messages within messages: protobuf's own limit."""


_KEY = b"location"


def external_locations(graph: bytes, name: str) -> frozenset[str]:
    """The ``location`` of every tensor with external data in the serialized ModelProto ``graph``.

    Raises:
        BundleError: ``graph``, the file ``name``, is no protobuf message or is nested too deeply.
    """
    found: set[str] = set()
    pending = [("ModelProto", 0, len(graph), 0)]
    try:
        while pending:
            kind, start, end, depth = pending.pop()
            if depth > _DEEPEST:
                raise ValueError("messages are nested too deeply")
            if kind == "StringStringEntryProto":
                entry = {number: graph[first:last] for number, first, last in _fields(graph, start, end)}
                if entry.get(1) == _KEY:
                    found.add(entry.get(2, b"").decode("utf-8"))
                continue
            children = CHILDREN[kind]
            # Protobuf has texts as they are: a message without these bytes says no location, whatever else it says.
            pending += [
                (children[number], first, last, depth + 1)
                for number, first, last in _fields(graph, start, end)
                if number in children and graph.find(_KEY, first, last) >= 0
            ]
    except (ValueError, IndexError) as error:
        raise BundleError(f"{name} is not an ONNX graph ({error}).", hint="Export the bundle again.") from error
    return frozenset(found)


def _fields(content: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of the fields that have a length (protobuf's wire type 2); the others are skipped."""
    while position < end:
        key, position = _varint(content, position)
        wire = key & 7
        if wire == 2:
            length, position = _varint(content, position)
            if length > end - position:
                raise ValueError("a field is longer than its message")
            yield key >> 3, position, position + length
            position += length
        elif wire == 0:
            _, position = _varint(content, position)
        elif wire in (1, 5):
            position += 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire}")
    if position > end:
        raise ValueError("a field is longer than its message")


def _varint(content: bytes, position: int) -> tuple[int, int]:
    byte = content[position]
    position += 1
    if byte < 0x80:
        return byte, position
    value, shift = byte & 0x7F, 7
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
