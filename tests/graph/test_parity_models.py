"""Real models in float32: the same 64 greedy tokens as transformers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from parity_support import Decoder, export_source, reference_logits

from edgedistill.catalog import builtin as catalog
from edgedistill.checkpoint.open import open_checkpoint

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.checkpoint.types import Checkpoint

pytest.importorskip("transformers")
pytestmark = pytest.mark.next

STEPS = 64
PROMPTS = {
    "tiny-reasoner": "Mia has 14 apples and buys 3 bags of 6 apples each. How many apples does Mia have now?",
    "smollm2-135m": "<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
}


def recorded(params: dict[str, Any]) -> tuple[str, str, str]:
    """What a passed model says about its family, for the table of families."""
    with open_checkpoint(params["name"]) as checkpoint:
        return checkpoint.config["model_type"], "answered", params["name"]


def reference_model(checkpoint: Checkpoint, directory: Path) -> Any:
    """The checkpoint's tensors in transformers' own model."""
    import torch
    import transformers

    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(checkpoint.config))
    config = transformers.AutoConfig.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    source = checkpoint.tensors
    state = {n: torch.from_numpy(source.read_rows(n, 0, source.info(n).shape[0])) for n in source.names()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    return model


@pytest.mark.parametrize("name", list(PROMPTS))
def test_greedy_tokens(name: str, tmp_path: Path) -> None:
    if not any(entry.name == name and entry.installed for entry in catalog.list_models()):
        pytest.skip(f"{name} is not pulled (edgedistill models pull {name})")
    from tokenizers import Tokenizer

    with open_checkpoint(name) as checkpoint:
        exported = export_source(checkpoint.config, checkpoint.tensors, tmp_path / "out", context_length=256)
        tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json.decode())
        prompt = tokenizer.encode(PROMPTS[name], add_special_tokens=False).ids
        decoder = Decoder(exported, 1, capacity=256)
        tokens, new = list(prompt), list(prompt)
        found = []
        for _ in range(STEPS):
            logits = decoder.step([new], np.array([[len(new) - 1]]))[0, -1]
            found.append(logits)
            new = [int(logits.argmax())]
            tokens += new
        # Greedy tokens are equal if, after each of ours, transformers would have chosen the next of ours.
        expected = reference_logits(reference_model(checkpoint, tmp_path / "hf"), tokens[:-1])[len(prompt) - 1 :]
    assert tokens[len(prompt) :] == expected.argmax(-1).tolist()
    assert len(set(tokens[len(prompt) :])) > 8
    assert np.abs(np.stack(found) - expected).max() < 1e-3
