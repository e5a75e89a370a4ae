"""What keeps a traced export from being another model: keys, RoPE kinds, and logits that are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import pytest

from edgedistill.errors import CheckpointError, ExportError, UnsupportedModelError
from edgedistill.export.optimum import proof

if TYPE_CHECKING:
    from pathlib import Path

transformers = pytest.importorskip("transformers")

PHI = {"model_type": "phi", "vocab_size": 67, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
       "num_attention_heads": 4, "max_position_embeddings": 96}  # fmt: skip


def read(**values: Any) -> Any:
    return proof.read_config(PHI | values, transformers.AutoConfig, allow_unused=False)


@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_a_rope_that_follows_the_length_cannot_be_traced(kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"RoPE \({kind}\) changes with the length"):
        read(rope_scaling={"rope_type": kind, "factor": 2.0})


def test_the_spelling_of_transformers_5_reaches_transformers_4() -> None:
    config = read(rope_parameters={"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.25})
    found = getattr(config, "rope_parameters", None) or vars(config)
    assert found["rope_theta"] == 500000.0
    assert found["partial_rotary_factor"] == 0.25


def test_a_key_that_would_be_ignored_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"residual_multiplier.*would ignore.*--allow-unused"):
        read(residual_multiplier=0.5)
    proof.read_config(PHI | {"residual_multiplier": 0.5}, transformers.AutoConfig, allow_unused=True)


def test_other_logits_are_not_accepted(tmp_path: Path) -> None:
    """A graph that looks logits up in a table, compared with its own table and with another."""
    table = np.random.default_rng(0).normal(size=(11, 11)).astype(np.float32)
    ids = ir.Value(name="input_ids", shape=ir.Shape(["batch", "sequence"]), type=ir.TensorType(ir.DataType.INT64))
    weight = ir.Value(name="table", const_value=ir.tensor(table), shape=ir.Shape([11, 11]),
                      type=ir.TensorType(ir.DataType.FLOAT))  # fmt: skip
    node = ir.node("Gather", [weight, ids], {"axis": 0}, num_outputs=1)
    node.outputs[0].name = "logits"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([ids], node.outputs, nodes=[node], initializers=[weight], opset_imports={"": 21})
    ir.save(ir.Model(graph, ir_version=10), tmp_path / "model.onnx")
    tokens = [3, 1, 4, 1, 5, 9]
    proof.prove(tmp_path / "model.onnx", [(tokens, table[tokens])])
    with pytest.raises(ExportError, match=r"gives other logits.*% of 6 tokens"):
        proof.prove(tmp_path / "model.onnx", [(tokens, table[tokens][:, ::-1].copy())])
    with pytest.raises(ExportError, match="gives other logits"):
        proof.prove(tmp_path / "model.onnx", [(tokens, table[tokens] * np.nan)])
