"""The text model inside a multimodal checkpoint: the logits that the whole model gives for text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from parity_support import BASE, Decoder, export, random_tokens, randomize, reference_logits

from edgedistill.checkpoint.normalize import TEXT_TYPES
from edgedistill.checkpoint.text_defaults import TEXT_DEFAULTS

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("transformers")
pytestmark = pytest.mark.next

SIGLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 28, "patch_size": 14}  # fmt: skip
GEMMA4_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "patch_size": 4,
    "position_embedding_size": 64,
}
GEMMA3N_AUDIO = {
    "hidden_size": 32,
    "conf_num_attention_heads": 2,
    "conf_num_hidden_layers": 1,
    "sscp_conv_channel_size": [8, 4],
}
QWEN_VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 48,
               "embed_dim": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}  # fmt: skip
PIXTRAL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
           "image_size": 28, "patch_size": 14}  # fmt: skip
MROPE = {"rope_type": "default", "mrope_section": [2, 3, 3]}

# model_type -> the text part's values, the vision part, and values of the whole.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "gemma3": ({"num_hidden_layers": 7, "sliding_window": 6, "query_pre_attn_scalar": 20}, SIGLIP,
               {"mm_tokens_per_image": 4, "image_token_index": 66}),
    "gemma3n": ({"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2,
                 "sliding_window": 6, "num_kv_shared_layers": 2, "vocab_size_per_layer_input": 50,
                 "hidden_size_per_layer_input": 16, "laurel_rank": 8}, {"hidden_size": 32},
                {"audio_config": GEMMA3N_AUDIO}),
    "gemma4": ({"num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2,
                "global_head_dim": 32, "sliding_window": 6, "num_kv_shared_layers": 2, "vocab_size_per_layer_input": 67,
                "hidden_size_per_layer_input": 16}, GEMMA4_VISION, {}),
    "qwen2_vl": ({"rope": MROPE, "hidden_size": 64}, QWEN_VISION | {"hidden_size": 64}, {}),
    "qwen2_5_vl": ({"rope": MROPE, "hidden_size": 64}, QWEN_VISION | {"out_hidden_size": 64}, {}),
    "qwen3_vl": ({"rope": MROPE | {"mrope_interleaved": True}}, QWEN_VISION, {}),
    "qwen3_5": ({"model_type": "qwen3_5_text", "rope": MROPE | {"mrope_interleaved": True}, "num_hidden_layers": 4,
                 "head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16,
                 "linear_value_head_dim": 16}, QWEN_VISION, {}),
    "qwen3_5_moe": ({"model_type": "qwen3_5_moe_text", "rope": MROPE | {"mrope_interleaved": True},
                     "num_hidden_layers": 4, "head_dim": 32, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
                     "linear_key_head_dim": 16, "linear_value_head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2,
                     "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}, QWEN_VISION, {}),
    "mistral3": ({"model_type": "mistral", "sliding_window": None}, PIXTRAL | {"model_type": "pixtral"}, {}),
}  # fmt: skip


def recorded(params: dict[str, Any]) -> tuple[str, str, str]:
    """What a passed case says about its family, for the table of families."""
    return TEXT_TYPES.get(params["kind"], CASES[params["kind"]][0].get("model_type", "")), "inside", params["kind"]


@pytest.fixture(autouse=True)
def without_vision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A matrix in place of Gemma 3n's images, whose network belongs to another package (timm)."""
    import torch
    from transformers.models.gemma3n import modeling_gemma3n

    class Models(modeling_gemma3n.AutoModel):  # type: ignore[misc]
        @classmethod
        def from_config(cls, config: Any, **options: Any) -> Any:
            if config.model_type == "gemma3n_vision":
                return torch.nn.Linear(4, 4)
            return super().from_config(config, **options)

    monkeypatch.setattr(modeling_gemma3n, "AutoModel", Models)


def save_wrapped(directory: Path, kind: str, **changed: Any) -> Any:
    """A random multimodal model of ``kind``, written to ``directory``; ``changed``: values of its text part."""
    import torch
    import transformers

    text, vision, whole = CASES[kind]
    if kind not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} does not know {kind}")
    values = BASE | text | changed
    rope = values.pop("rope", None)
    if rope is not None:
        values |= {"rope_parameters": {"rope_theta": 10000.0, **rope}, "rope_scaling": rope}
        values.pop("rope_scaling" if int(transformers.__version__.split(".")[0]) >= 5 else "rope_parameters")
    config = transformers.AutoConfig.for_model(
        kind, text_config=values, vision_config=vision, tie_word_embeddings="gemma" in kind, vocab_size=67, **whole
    )
    torch.manual_seed(0)
    model = transformers.AutoModelForImageTextToText.from_config(config, attn_implementation="eager")
    randomize(model, norm=0.0 if kind == "gemma3" or kind.startswith("qwen3_5") else 1.0)
    model = model.float().eval()
    model.save_pretrained(directory)
    return model


@pytest.mark.parametrize("kind", list(CASES))
def test_text_of_a_multimodal_model(kind: str, tmp_path: Path) -> None:
    model = save_wrapped(tmp_path / "hf", kind)
    tokens = random_tokens(30)
    expected = reference_logits(model, [min(token, 60) for token in tokens])
    found = Decoder(export(tmp_path / "hf", tmp_path / "out"), 1).step([[min(token, 60) for token in tokens]])[0]
    assert expected.std() > 0.3
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def test_sizes_that_are_left_out_of_the_text_part_are_those_of_its_class(tmp_path: Path) -> None:
    """As in Gemma 3 4B, whose config.json says nothing of heads."""
    silent = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "rms_norm_eps": 1e-6}
    model = save_wrapped(tmp_path / "hf", "gemma3", **silent)
    path = tmp_path / "hf" / "config.json"
    config = json.loads(path.read_text())
    for key in silent:
        del config["text_config"][key]
    path.write_text(json.dumps(config))
    tokens = [min(token, 60) for token in random_tokens(30)]
    found = Decoder(export(tmp_path / "hf", tmp_path / "out"), 1).step([tokens])[0]
    np.testing.assert_allclose(found, reference_logits(model, tokens), rtol=0, atol=1e-4)


def test_sizes_of_the_classes() -> None:
    import transformers

    for kind, sizes in TEXT_DEFAULTS.items():
        if kind not in transformers.CONFIG_MAPPING or kind in ("qwen2_vl", "qwen2_5_vl"):  # those of the whole model
            continue
        own = transformers.AutoConfig.for_model(kind).to_dict()
        if isinstance(own["intermediate_size"], list):  # of each layer
            (own["intermediate_size"],) = set(own["intermediate_size"])
        assert {key: own[key] for key in sizes if key != "rope_theta"} == {
            key: value for key, value in sizes.items() if key != "rope_theta"
        }, kind
