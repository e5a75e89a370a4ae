"""Adapters of every kind that PEFT trains: the logits of the live PEFT model.

A head that shares its embedding keeps the base's weights there; ``merge_and_unload`` would write one matrix for both,
which is another model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoint_fixtures import write_directory
from parity_support import Decoder, export_source, randomize, reference_logits

from edgedistill.checkpoint.open import open_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": "all-linear", "use_dora": True, "use_rslora": True},
        {"target_modules": ["embed_tokens", "down_proj"], "use_dora": True},
        {"target_modules": ["q_proj", "o_proj"], "lora_bias": True},
        {"target_modules": ["q_proj"], "bias": "all"},
        {"target_modules": ["up_proj"], "trainable_token_indices": [5, 319, 7]},
        {"target_modules": ["up_proj"], "trainable_token_indices": {"embed_tokens": [5, 6], "lm_head": [300]}},
        {
            "target_modules": ["q_proj", "gate_proj"],
            "use_dora": True,
            "rank_pattern": {"gate_proj": 3},
            "alpha_pattern": {"1.mlp.gate_proj": 40},
            "modules_to_save": ["norm"],
        },
    ],
)
def test_logits_of_the_live_model(options: dict[str, Any], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    directory = write_directory(tmp_path / "base", attention_bias="bias" in str(options))
    if "bias" in str(options):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.from_pretrained(directory))
        model.save_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory)
    randomize(model)
    model.save_pretrained(directory)
    live = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=12, task_type="CAUSAL_LM", **options))
    trained = [parameter for parameter in live.parameters() if parameter.requires_grad]
    for seed, parameter in enumerate(trained):
        parameter.data += 0.2 * np.random.default_rng(seed).standard_normal(parameter.shape).astype(np.float32)
    live.eval().save_pretrained(tmp_path / "adapter")
    tokens = np.random.default_rng(0).integers(3, 300, 24).tolist()
    with open_checkpoint(str(directory), adapter=tmp_path / "adapter") as checkpoint:
        exported = export_source(checkpoint.config, checkpoint.tensors, tmp_path / "out")
    found = Decoder(exported, 1).step([tokens])[0]
    np.testing.assert_allclose(found, reference_logits(live, tokens), rtol=0, atol=1e-4)
