"""Configs to specs: both spellings, defaults of the config classes, and everything that must be refused."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from family_cases import CASES, LINEAR, YARN
from parity_support import BASE, save_random_model

from edgedistill.architecture.families import FAMILIES, build_spec, is_known
from edgedistill.architecture.refused_types import reason
from edgedistill.architecture.tensors import model_tensors
from edgedistill.architecture.weights import check_tensors, logical_weights
from edgedistill.checkpoint.normalize import normalize
from edgedistill.checkpoint.safetensors import open_safetensors
from edgedistill.checkpoint.types import TensorInfo
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from pathlib import Path


def config(model_type: str, **values: Any) -> dict[str, Any]:
    return BASE | {"model_type": model_type} | values


def windows(**values: Any) -> list[int | None]:
    return [layer.sliding_window for layer in build_spec(config(**values)).layers]


class Headers:
    """A tensor source of headers only."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.shapes = shapes

    def names(self) -> list[str]:
        return list(self.shapes)

    def info(self, name: str) -> TensorInfo:
        return TensorInfo(name, self.shapes[name], "F32")

    def read_rows(self, name: str, start: int, stop: int) -> Any:
        raise AssertionError("a check of headers reads no weights")

    def close(self) -> None:
        pass


@pytest.mark.next
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_exactly_the_checkpoints(family: str, tmp_path: Path) -> None:
    """Every tensor that transformers saves is used once, with its shape."""
    pytest.importorskip("transformers")
    values = next(values for model_type, values in CASES.values() if model_type == family)
    save_random_model(tmp_path, family, **values | {"attention_bias": True, "mlp_bias": True, "hidden_size": 64})
    stated = json.loads((tmp_path / "config.json").read_text())
    spec = build_spec(stated)
    saved = open_safetensors(tmp_path)  # under other names than in memory, from transformers 5 on
    shapes = {name: saved.info(name).shape for name in saved.names()}
    saved.close()
    parts = [part for weight in logical_weights(spec) for part in weight.parts]
    # transformers 4 saves Gemma 3n's text model under the names that it has inside the whole one.
    found = normalize(stated, Headers(shapes)).tensors
    tensors = model_tensors(stated, spec, found)
    assert tensors.unused(parts, FAMILIES[family].ignored) == []
    check_tensors(spec, tensors)
    assert sum(int(np.prod(w.shape)) for w in logical_weights(spec)) == sum(
        math.prod(found.info(name).shape) for name in set(found.names()) - set(tensors.unused(parts, ()))
    )


def test_both_spellings_of_rope_give_the_same_spec() -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
    old = config("qwen3", rope_theta=5e5, rope_scaling=scaling)
    new = config("qwen3", rope_parameters=scaling | {"rope_theta": 5e5})
    assert build_spec(old) == build_spec(new)
    types = ["sliding_attention", "full_attention", "sliding_attention"]
    old = config("gemma3_text", rope_theta=1e6, rope_local_base_freq=1e4, layer_types=types)
    new = config(
        "gemma3_text",
        layer_types=types,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    )
    assert build_spec(old) == build_spec(new)
    assert build_spec(old).layers[0].rope != build_spec(old).layers[1].rope


def test_defaults_where_the_config_is_silent() -> None:
    silent = {k: v for k, v in BASE.items() if k not in ("num_key_value_heads", "head_dim", "max_position_embeddings")}
    spec = build_spec(silent | {"model_type": "llama", "hidden_size": 64})
    assert (spec.num_key_value_heads, spec.head_dim, spec.max_position_embeddings) == (4, 16, 2048)
    spec = build_spec(silent | {"model_type": "qwen3", "num_attention_heads": 32})
    assert (spec.num_key_value_heads, spec.head_dim, spec.max_position_embeddings) == (32, 128, 32768)


def test_flags_of_each_family() -> None:
    assert build_spec(config("qwen2")).qkv_bias
    assert not build_spec(config("qwen2")).o_bias
    assert build_spec(config("llama", attention_bias=True)).o_bias
    assert not build_spec(config("mistral", attention_bias=True)).qkv_bias
    assert not build_spec(config("llama")).tie_word_embeddings
    assert build_spec(config("smollm3")).tie_word_embeddings
    assert build_spec(config("qwen3")).qk_norm == "head"
    gemma = build_spec(config("gemma3_text", query_pre_attn_scalar=64))
    assert gemma.attention_scale == pytest.approx(1 / 8)
    assert gemma.embedding_scale == pytest.approx(48**0.5)
    assert gemma.activation == "gelu_tanh"
    assert gemma.tie_word_embeddings
    assert gemma.norm_placement == "sandwich"
    norms = [w for w in logical_weights(gemma) if w.kind == "norm"]
    assert {w.offset for w in norms} == {1.0}
    assert len(norms) == 6 * 3 + 1


def test_sliding_windows() -> None:
    assert windows(model_type="llama", sliding_window=5) == [None] * 3
    assert windows(model_type="mistral", sliding_window=5) == [5] * 3
    assert windows(model_type="mistral") == [4096] * 3
    assert windows(model_type="mistral", sliding_window=None) == [None] * 3
    assert windows(model_type="qwen2", sliding_window=5) == [None] * 3
    assert windows(model_type="qwen2", sliding_window=5, use_sliding_window=True, max_window_layers=1) == [None, 5, 5]
    experts = {"hidden_size": 64, "moe_intermediate_size": 32, "sliding_window": 5, "max_window_layers": 1}
    assert windows(model_type="qwen3_moe", use_sliding_window=True, **experts) == [5] * 3
    assert windows(model_type="qwen3_moe", **experts) == [None] * 3
    types = ["full_attention", "sliding_attention", "full_attention"]
    values = {"sliding_window": 5, "use_sliding_window": True, "layer_types": types}
    assert windows(model_type="qwen3", **values) == [None, 5, None]
    assert windows(model_type="gemma3_text", sliding_window=5, sliding_window_pattern=2) == [5, None, 5]
    assert windows(model_type="gemma3_text", sliding_window=5, num_hidden_layers=7) == [5] * 5 + [None, 5]
    assert windows(model_type="smollm3", sliding_window=5, use_sliding_window=True, num_hidden_layers=4) == [
        None,
        None,
        None,
        5,
    ]


def test_a_mistral_that_lists_its_layers_is_opened_as_ministral() -> None:
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    assert windows(model_type="mistral", sliding_window=7, layer_types=kinds) == [None, 7, None]


def test_layers_without_position_encoding() -> None:
    rotated = [layer.rope is not None for layer in build_spec(config("smollm3", num_hidden_layers=9)).layers]
    assert rotated == [True, True, True, False, True, True, True, False, True]
    rotated = [layer.rope is not None for layer in build_spec(config("smollm3", no_rope_layers=[0, 1, 0])).layers]
    assert rotated == [False, True, False]
    full = ["full_attention"] * 3  # a window that no layer has still says that none of them is rotated
    for family, window, expected in (("exaone4", 6, False), ("exaone4", None, True), ("cohere2", None, False)):
        layers = build_spec(config(family, sliding_window=window, layer_types=full)).layers
        assert [layer.rope is not None for layer in layers] == [expected] * 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt_neox"}, "type 'gpt_neox'.*edgedistill families.*--exporter optimum"),
        ({"model_type": None}, "type 'None'"),
        (
            {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}},
            "type 'gemma3'.*wraps a text model of type 'gemma3_text'",
        ),
        ({"model_type": "granitemoehybrid", "layer_types": ["conv"] * 3}, "layers of type conv.*or mamba"),
        ({"model_type": "qwen3", "final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0 .a cap on logits"),
        ({"model_type": "llama", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0 .a cap on attention"),
        ({"model_type": "llama", "num_local_experts": 8}, "num_local_experts = 8 .a mixture of experts"),
        ({"model_type": "llama", "attention_multiplier": 0.1}, "attention_multiplier"),
        ({"model_type": "llama", "quantization_config": {"quant_method": "gptq"}}, "already quantized .gptq"),
        ({"model_type": "llama", "rope_scaling": {"rope_type": "axial"}}, "RoPE kind 'axial'"),
        ({"model_type": "llama", "hidden_act": "quick_gelu"}, "activation 'quick_gelu'; expected one of silu"),
        ({"model_type": "llama", "head_dim": 12}, "heads have 12 elements"),
        ({"model_type": "olmo2", "partial_rotary_factor": 0.5}, "olmo2 model has partial_rotary_factor = 0.5.*Remove"),
        ({"model_type": "llama", "rope_scaling": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5"),
        ({"model_type": "qwen3", "rope_parameters": {"partial_rotary_factor": 0.25}}, "partial_rotary_factor = 0.25"),
        ({"model_type": "gemma3_text", "attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "bidirectional"),
        (
            {
                "model_type": "qwen3",
                "use_sliding_window": True,
                "layer_types": ["full_attention", "chunked_attention", "full_attention"],
            },
            "layers of type chunked_attention",
        ),
        ({"model_type": "qwen2_moe", "use_sliding_window": True}, "use_sliding_window = True .windows"),
        ({"model_type": "qwen2_moe", "layer_types": ["sliding_attention"] * 3}, "qwen2_moe model lists layers with"),
        ({"model_type": "qwen3_5_text", "hidden_act": "gelu"}, "has the activation 'gelu'; of this type, silu"),
        ({"model_type": "qwen3", "is_causal": False}, "is_causal = False .bidirectional"),
        (
            {"model_type": "llama", "rope_parameters": {"full_attention": {"rope_theta": 7.0}}},
            "rope_parameters of this llama model are stated for each kind of layer; one set of them",
        ),
        (
            {"model_type": "gemma3_text", "rope_parameters": LINEAR},
            "rope_parameters of this gemma3_text model are stated as one set; a set for each kind of layer",
        ),
        ({"model_type": "gemma3_text", "rope_scaling": YARN | {"truncate": False}}, "have truncate = false"),
        (
            {"model_type": "glm4", "rope_parameters": {"rope_type": "proportional", "partial_rotary_factor": 0.5}},
            "glm4 model is proportional, and its rotary pairs are neighbours",
        ),
        ({"model_type": "olmo3", "rope_parameters": LINEAR}, "olmo3 model are stated as one set"),
        ({"model_type": "olmo3", "rope_scaling": {"full_attention": {}}}, "olmo3 model are stated for each kind"),
        (
            {"model_type": "qwen3", "rope_scaling": {"rope_type": "dynamic", "factor": 1.0, "alpha": 9.0}},
            "has an alpha",
        ),
    ],
)
def test_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        build_spec(BASE | values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": None}, "hidden_size = None; a positive integer"),
        ({"num_hidden_layers": -1}, "num_hidden_layers = -1"),
        ({"vocab_size": "many"}, "vocab_size = 'many'"),
        ({"num_key_value_heads": 3}, "4 attention heads cannot share 3"),
        ({"model_type": "smollm3", "no_rope_layers": [1]}, "no_rope_layers = .1.; a list of 3 values"),
        ({"rope_scaling": 3}, "rope_scaling = 3; an object"),
        ({"rope_theta": []}, "rope_theta = ..; a number"),
        ({"sliding_window": "wide", "model_type": "mistral"}, "sliding_window = 'wide'; a positive integer"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps = 'small'; a number"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps = -1e-05; 0 or more"),
        ({"model_type": "gemma2", "final_logit_softcapping": 0.0}, "final_logit_softcapping = 0; a positive number"),
        ({"model_type": "apertus", "rope_theta": 800.0}, "a rope_theta and no RoPE parameters"),
        (
            {"rope_scaling": YARN, "original_max_position_embeddings": 32},
            "original_max_position_embeddings = 32 and 24 in its RoPE parameters",
        ),
        (
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "rope_scaling": LINEAR},
            "rope_parameters and rope_scaling, which differ.*remove rope_scaling",
        ),
    ],
)
def test_contradictions(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        build_spec(config("llama") | values)


@pytest.mark.parametrize(
    ("stated", "activation"),
    [({}, "gelu_tanh"), ({"hidden_act": "gelu"}, "gelu_tanh"), ({"hidden_act": "silu"}, "silu")],
)
def test_the_first_gemma_has_the_activation_of_the_older_key(stated: dict[str, Any], activation: str) -> None:
    assert build_spec(config("gemma", **stated)).activation == activation


def test_a_cap_of_zero_caps_nothing_in_a_family_without_caps() -> None:
    assert build_spec(config("llama", final_logit_softcapping=0.0)).final_logit_softcapping is None


def test_both_spellings_of_rope_may_say_the_same() -> None:
    """Written for transformers 4 and 5 at once."""
    newer = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    both = config("llama", rope_parameters=newer, rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0})
    assert build_spec(both) == build_spec(config("llama", rope_parameters=newer))


def test_a_refusal_says_why_where_that_is_known() -> None:
    with pytest.raises(UnsupportedModelError, match=r"type 'phimoe'.*known families: its router masks"):
        build_spec({"model_type": "phimoe"})
    with pytest.raises(UnsupportedModelError, match=r"type 'gpt_unheard_of'.*known families\. See"):
        build_spec({"model_type": "gpt_unheard_of"})
    assert not [name for name in FAMILIES if reason(name)]


def test_is_known() -> None:
    assert is_known({"model_type": "qwen3"})
    assert not is_known({"model_type": "opt"})
    assert not is_known({})


def test_tensors_missing_or_of_another_shape() -> None:
    spec = build_spec(config("llama"))
    shapes: dict[str, Any] = {}
    for weight in logical_weights(spec):
        rows = [64, 32, 32] if len(weight.parts) == 3 else [weight.shape[0]]
        shapes |= {part: (n, *weight.shape[1:]) for part, n in zip(weight.parts, rows, strict=True)}
    check_tensors(spec, Headers(shapes))
    with pytest.raises(
        CheckpointError, match=r"'model.layers.1.self_attn.k_proj.weight' has shape \[64, 48\].*\[32, 48\]"
    ):
        check_tensors(spec, Headers(shapes | {"model.layers.1.self_attn.k_proj.weight": (64, 48)}))
    with pytest.raises(CheckpointError, match=r"no tensor 'lm_head.weight'.*tie_word_embeddings"):
        check_tensors(spec, Headers({k: v for k, v in shapes.items() if k != "lm_head.weight"}))
    with pytest.raises(
        CheckpointError, match=r"no tensor 'model.layers.2.mlp.up_proj.weight'; one of shape \[80, 48\]"
    ):
        check_tensors(spec, Headers({k: v for k, v in shapes.items() if "2.mlp.up" not in k}))


@pytest.mark.parametrize(("layers", "experts", "said"), [(3, 1 << 20, True), (1024, 200, True), (94, 512, False)])
def test_more_experts_than_any_model_has_are_said_before_anything_loops_over_them(
    layers: int, experts: int, said: bool
) -> None:
    stated = config(
        "qwen3_moe", num_hidden_layers=layers, num_experts=experts, moe_intermediate_size=32, hidden_size=64
    )
    if said:
        with pytest.raises(CheckpointError, match=f"claims {layers * experts} experts in all layers"):
            build_spec(stated)
    else:
        assert build_spec(stated).layers[-1].mixture


@pytest.mark.parametrize(
    ("family", "key"),
    [("granite", "attention_multiplier"), ("granite", "logits_scaling"), ("gemma2", "query_pre_attn_scalar")],
)
@pytest.mark.parametrize("value", [0, 0.0, -0.5])
def test_multipliers_that_are_divided_by_or_mean_something_else_at_zero(family: str, key: str, value: float) -> None:
    """ONNX Runtime's attention takes a scale of 0 for none given."""
    with pytest.raises(CheckpointError, match=rf"{key} = {value:g}; a positive number"):
        build_spec(config(family, **{key: value}))


@pytest.mark.parametrize("stated", [{}, {"rope_parameters": None}])
@pytest.mark.parametrize(
    ("family", "kind", "theta", "others"),
    [
        ("gpt_oss", "yarn", 150000.0, {"factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096}),
        (
            "apertus",
            "llama3",
            12e6,
            {"factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 8192},
        ),
        ("ministral3", "yarn", 1e6, {"factor": 16.0, "mscale": 1, "mscale_all_dim": 1}
         | {"original_max_position_embeddings": 16384, "llama_4_scaling_beta": 0.1}),
    ],
)  # fmt: skip
def test_rope_of_a_family_where_the_config_is_silent(
    family: str, kind: str, theta: float, others: dict[str, Any], stated: dict[str, Any]
) -> None:
    """As their config classes have it; as the text part of a larger model, transformers writes down nothing else."""
    more = {"activation_key": "xielu", "num_experts_per_tok": 1, "hidden_size": 64}
    spoken = build_spec(config(family, **more, rope_parameters={"rope_type": kind, "rope_theta": theta} | others))
    assert build_spec(config(family, **more, **stated)) == spoken
    older = build_spec(config(family, **more, **stated, rope_scaling=None))  # as transformers 4 says that there is none
    assert older.layers[-1].rope is not None
    assert spoken.layers[-1].rope is not None
    assert (older.layers[-1].rope.kind, spoken.layers[-1].rope.kind) == ("default", kind)


@pytest.mark.parametrize("family", ["qwen3_moe", "mixtral", "granitemoe"])
def test_experts_of_another_activation_than_their_kernel_has(family: str) -> None:
    values = {"hidden_size": 64, "intermediate_size": 64, "num_experts": 4, "num_experts_per_tok": 2}
    assert build_spec(config(family, **values, hidden_act="silu")).experts is not None
    with pytest.raises(UnsupportedModelError, match="experts have the activation 'gelu'"):
        build_spec(config(family, **values, hidden_act="gelu"))


@pytest.mark.parametrize(
    ("stated", "rotated"), [({}, True), ({"position_embedding_type": "rope"}, True)]
    + [({"position_embedding_type": value}, False) for value in (None, "nope")],
)  # fmt: skip
def test_granite_with_experts_has_rope_unless_its_config_says_otherwise(stated: dict[str, Any], rotated: bool) -> None:
    values = {"hidden_size": 64, "intermediate_size": 64, "num_local_experts": 4, "num_experts_per_tok": 2}
    spec = build_spec(config("granitemoe", **values, **stated))
    assert [layer.rope is not None for layer in spec.layers] == [rotated] * 3
