"""RoPE parameters and tables against transformers' own, and bad parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from parity_support import CONTEXT, save_random_model

from edgedistill.errors import CheckpointError, UnsupportedModelError
from edgedistill.export.architecture import build_spec
from edgedistill.export.rope import distinct_ropes, rope_spec, rope_tables
from edgedistill.export.spec import RopeSpec

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
KINDS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": LLAMA3 | {"original_max_position_embeddings": 32},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24},
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 40.0,
        "original_max_position_embeddings": 24,
        "mscale": 1.3,
        "mscale_all_dim": 0.7,
    },
    "yarn-no-truncate": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 24,
        "truncate": False,
        "beta_fast": 8,
    },
}


def plain(params: dict[str, Any], head_dim: int = 16) -> RopeSpec:
    return rope_spec(params, head_dim=head_dim, theta=10000.0, max_position_embeddings=CONTEXT)


@pytest.mark.next
@pytest.mark.parametrize("kind", KINDS)
def test_frequencies_equal_transformers(kind: str, tmp_path: Any) -> None:
    pytest.importorskip("transformers")
    model = save_random_model(tmp_path, "llama", rope=KINDS[kind], rope_theta=20000.0, head_dim=64)
    rotary = model.model.rotary_emb
    found = rope_spec(KINDS[kind], head_dim=64, theta=20000.0, max_position_embeddings=CONTEXT)
    np.testing.assert_allclose(found.inv_freq, rotary.inv_freq.numpy(), rtol=3e-6)
    assert found.attention_scaling == pytest.approx(rotary.attention_scaling)
    assert found.kind == KINDS[kind]["rope_type"]


def test_the_older_spelling_of_the_kind() -> None:
    assert plain({"type": "linear", "factor": 4.0}) == plain({"rope_type": "linear", "factor": 4.0})


def test_theta_inside_the_parameters_wins() -> None:
    inside = rope_spec({"rope_theta": 500.0}, head_dim=16, theta=10000.0, max_position_embeddings=CONTEXT)
    outside = rope_spec({}, head_dim=16, theta=500.0, max_position_embeddings=CONTEXT)
    assert inside == outside
    assert inside.inv_freq[1] == pytest.approx(500.0 ** (-2 / 16))


def test_frequency_factors_divide() -> None:
    factors = [1.0, 1.0, 2.0, 2.0, 4.0, 4.0, 8.0, 8.0]
    found = plain({"rope_type": "freq_factors", "freq_factors": factors})
    np.testing.assert_allclose(np.array(found.inv_freq) * factors, plain({}).inv_freq, rtol=1e-6)


@pytest.mark.parametrize("kind", ["dynamic", "longrope", "su"])
def test_unknown_kinds(kind: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"'{kind}'.*known are default, linear, llama3.*--exporter optimum"):
        plain({"rope_type": kind, "factor": 2.0})


def test_partial_rotation() -> None:
    with pytest.raises(UnsupportedModelError, match=r"partial_rotary_factor 0\.5"):
        plain({"rope_type": "default", "partial_rotary_factor": 0.5})


@pytest.mark.parametrize("missing", ["factor", "low_freq_factor", "original_max_position_embeddings"])
def test_missing_parameter(missing: str) -> None:
    params = {k: v for k, v in KINDS["llama3"].items() if k != missing}
    with pytest.raises(CheckpointError, match=f"{missing} = None; a number"):
        plain(params)


def test_wrong_number_of_frequency_factors() -> None:
    with pytest.raises(CheckpointError, match=r"3 positive RoPE frequency factors.*needs 8"):
        plain({"rope_type": "freq_factors", "freq_factors": [1.0, 2.0, 3.0]})


def test_tables_are_shared_between_layers_of_the_same_rope() -> None:
    config = {
        "model_type": "gemma3_text",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 7,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "vocab_size": 9,
        "rope_theta": 1e6,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    spec = build_spec(config)
    assert list(distinct_ropes(spec).values()) == [0, 1]
    tables = rope_tables(spec, 10)
    assert set(tables) == {"rope.0.cos", "rope.0.sin", "rope.1.cos", "rope.1.sin"}
    for table in tables.values():
        assert table.dtype == np.float32
        assert table.shape == (10, 8)
    # Position 3 of the sliding layers' table (first used), and of the full layers', slowed by the factor 8.
    assert tables["rope.0.cos"][3, 0] == pytest.approx(np.cos(3.0))
    assert tables["rope.1.sin"][3, 0] == pytest.approx(np.sin(3.0 / 8), rel=1e-6)


def test_attention_scaling_multiplies_the_tables() -> None:
    config = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 9,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 2.0},
    }
    tables = rope_tables(build_spec(config), 4)
    np.testing.assert_allclose(tables["rope.0.cos"] ** 2 + tables["rope.0.sin"] ** 2, 4.0, rtol=1e-6)


@pytest.mark.parametrize("theta", [-10000.0, float("inf"), float("nan")])
def test_a_base_that_is_no_positive_number_is_refused(theta: float) -> None:
    with pytest.raises(CheckpointError, match="rope_theta"):
        rope_spec({}, head_dim=16, theta=theta, max_position_embeddings=64)
