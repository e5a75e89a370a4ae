"""The trial in slices gives the same tokens as the whole graph, however it is cut."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnxruntime
import pytest
from exporting import export
from parity_support import save_random_model

from edgedistill.bundle.bundle import MODEL, Bundle
from edgedistill.export.calibrate import sliced_run as sliced

PROMPT = [3, 4, 5, 6, 9]
STEPS = 6


@pytest.fixture(scope="module", params=["qwen3", "gemma3_text", "llama", "qwen3 int3-b32-acc1", "llama int6-b32-acc1"])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    family, *weight_format = request.param.split()
    root = tmp_path_factory.mktemp(family)
    save_random_model(root / "hf", family)
    (root / "hf" / "tokenizer.json").write_text(json.dumps(TOKENIZER), encoding="utf-8")
    export(root / "hf", root / "bundle", format=weight_format[0] if weight_format else "int4-b32-acc1", check=False)
    return Bundle.open(root / "bundle")


TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": None,
    "model": {"type": "BPE", "vocab": {chr(97 + i): i for i in range(26)}, "merges": []},
}


def whole(bundle: Bundle) -> list[int]:
    """Greedy decoding by the whole graph, every step from scratch."""
    session = onnxruntime.InferenceSession(str(bundle.path / MODEL))
    model = bundle.manifest.model
    tokens = list(PROMPT)
    cache = np.zeros((1, model.num_key_value_heads, len(PROMPT) + STEPS, model.head_dim), np.float32)
    for _ in range(STEPS):
        feeds = {
            "input_ids": np.array([tokens], np.int64),
            "seqlens_k": np.array([len(tokens) - 1], np.int32),
            "query_seqlens": np.array([len(tokens)], np.int32),
            "total_sequence_length": np.array(cache.shape[2], np.int32),
            "logit_index": np.array([[len(tokens) - 1]], np.int64),
        }
        caches = {i.name: cache for i in session.get_inputs() if i.name.startswith("past_key_values")}
        logits = session.run(["logits"], {**feeds, **caches})[0]
        tokens.append(int(np.argmax(logits[0, -1])))
    return tokens[len(PROMPT) :]


@pytest.mark.parametrize("limit", [1, 12_000, 1 << 30])
def test_slices_agree_with_the_whole(bundle: Bundle, limit: int) -> None:
    count = len(list(sliced.pieces(bundle.manifest, limit)))
    assert count == {1: bundle.manifest.model.num_hidden_layers + 1, 1 << 30: 2}.get(limit, count)
    assert sliced.decode(bundle.path, bundle.manifest, PROMPT, STEPS, limit) == whole(bundle)
    assert {p.name for p in bundle.path.iterdir()} == {"manifest.json", *(f.name for f in bundle.manifest.files)}
