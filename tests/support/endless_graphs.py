"""Bundles whose graph is a program that nobody wants to run: one that never ends, one that wants terabytes, ..."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import onnx
from bundle_files import opened_graph, relist
from onnx import TensorProto, helper

if TYPE_CHECKING:
    from pathlib import Path


def _with(bundle: Path, out: Path, nodes: list[onnx.NodeProto], first: str) -> Path:
    """A copy of ``bundle`` whose logits wait for ``nodes``, the last of which makes the float32 scalar ``first``."""
    shutil.copytree(bundle, out)
    graph = out / opened_graph(out)
    model = onnx.load(str(graph), load_external_data=False)
    for node in model.graph.node:
        for at, name in enumerate(node.output):
            if name == "logits":
                node.output[at] = "logits of the model"
    model.graph.node.extend([*nodes, helper.make_node("Add", ["logits of the model", first], ["logits"])])
    graph.write_bytes(model.SerializeToString())
    relist(out)
    return out


def _constant(name: str, kind: int, shape: list[int], value: list[Any]) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=helper.make_tensor(name, kind, shape, value))


def endless(bundle: Path, out: Path) -> Path:
    """A loop whose condition stays true: 2**62 rounds."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still on"]), helper.make_node("Sin", ["x"], ["next x"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("x", TensorProto.FLOAT, [])],
        [helper.make_tensor_value_info("still on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("next x", TensorProto.FLOAT, [])],
    )  # fmt: skip
    nodes = [
        _constant("rounds", TensorProto.INT64, [], [2**62]),
        _constant("always", TensorProto.BOOL, [], [True]),
        _constant("start", TensorProto.FLOAT, [], [0.5]),
        helper.make_node("Loop", ["rounds", "always", "start"], ["looped"], body=body),
    ]
    return _with(bundle, out, nodes, "looped")


def growing(bundle: Path, out: Path) -> Path:
    """A loop that doubles a tensor in every round, and touches it: memory goes up until there is none."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still on"]),
         helper.make_node("Concat", ["x", "x"], ["next x"], axis=0)],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])],
        [helper.make_tensor_value_info("still on", TensorProto.BOOL, []),
         helper.make_tensor_value_info("next x", TensorProto.FLOAT, ["m"])],
    )  # fmt: skip
    nodes = [
        _constant("rounds", TensorProto.INT64, [], [40]),
        _constant("always", TensorProto.BOOL, [], [True]),
        _constant("start", TensorProto.FLOAT, [2], [0.5, 0.5]),
        helper.make_node("Loop", ["rounds", "always", "start"], ["looped"], body=body),
        helper.make_node("ReduceMax", ["looped"], ["largest"], keepdims=0),
    ]
    return _with(bundle, out, nodes, "largest")


def huge(bundle: Path, out: Path) -> Path:
    """A tensor of eight terabytes at once."""
    nodes = [
        _constant("shape", TensorProto.INT64, [1], [2**41]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["largest"], keepdims=0),
    ]
    return _with(bundle, out, nodes, "largest")
