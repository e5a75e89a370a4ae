"""Gemma 3n from end to end: residual streams, a second embedding with fewer rows than tokens, shared keys."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoint_fixtures import tokenizer
from exporting import export
from family_cases import CASES
from gguf_parity import write_model
from parity_support import random_tokens, reference_logits, save_random_model
from runtime_support import continued, prefilled
from safetensors.numpy import load_file, save_file

import edgedistill
from edgedistill.bundle.bundle import Bundle
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.cli import main
from edgedistill.errors import UnsupportedModelError
from edgedistill.export.calibrate import sliced_run
from edgedistill.runtime.session import DecoderSession
from edgedistill.tune.pipeline import _check_reference
from edgedistill.verify.models.torch import TorchModel
from edgedistill.verify.sampling.protocol import Slice
from edgedistill.verify.suites.registry import load_suite

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.next

ROWS = 60
SIZES = CASES["gemma3n"][1] | {"vocab_size": 320, "vocab_size_per_layer_input": ROWS, "hidden_size": 64}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    directory = tmp_path_factory.mktemp("gemma3n")
    model = save_random_model(directory, "gemma3n_text", **SIZES)
    (directory / "tokenizer.json").write_text(tokenizer().to_str(), encoding="utf-8")
    return directory, model


@pytest.fixture(scope="module")
def bundle(source: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "fp32"
    return Bundle.open(export(source[0], out, format="fp32", kv_cache="float32").path)


def of_known_rows(model: Any, ids: list[int]) -> np.ndarray:
    """Logits as transformers' whole model has them: tokens without a row in the second embedding read the first."""
    import torch

    tokens = torch.tensor([ids])
    with torch.no_grad():
        rows = model.model.get_per_layer_inputs(torch.where(tokens < ROWS, tokens, 0))
        embedded = model.model.embed_tokens(tokens)
        logits: np.ndarray = model(inputs_embeds=embedded, per_layer_inputs=rows, use_cache=True).logits[0].numpy()
    return logits


def test_greedy_64_tokens_of_the_runtime(source: tuple[Path, Any], bundle: Bundle) -> None:
    """Past the window, over the runtime's shared buffers, with tokens that have no row in the second embedding."""
    prompt = random_tokens(30)
    assert max(prompt) >= ROWS
    tokens, found = continued(bundle, prompt, 64)
    expected = of_known_rows(source[1], tokens[:-1])[29:]
    assert tokens[30:] == expected.argmax(axis=1).tolist()
    assert np.abs(found - expected).max() < 1e-4


def test_the_reference_reads_the_rows_that_there_are(source: tuple[Path, Any]) -> None:
    ids = [token % ROWS for token in random_tokens(20)]
    assert np.abs(of_known_rows(source[1], ids) - reference_logits(source[1], ids)).max() < 1e-5


def test_rows_that_continue_one_prompt_as_trajectories_do(bundle: Bundle) -> None:
    """Layers without keys of their own read, for every row, those that its own tokens made."""
    prompt, rows = random_tokens(20), [random_tokens(9, seed) for seed in (1, 2, 3)]
    decoder = DecoderSession(bundle).decoder()
    decoder.feed_all(prompt, exact=True)
    batch = decoder.select([0, 0, 0])
    found = [batch.step(np.array([[row[index]] for row in rows]), exact=True)[:, 0].copy() for index in range(9)]
    expected = [prefilled(bundle, [*prompt, *row])[20:] for row in rows]
    assert np.abs(np.stack(found, axis=1) - np.stack(expected)).max() < 1e-4


@pytest.mark.parametrize("limit", [1, 100_000])
def test_slices_give_what_the_whole_gives(bundle: Bundle, limit: int) -> None:
    """What flows between slices has an axis for the streams; export tries large bundles this way."""
    ids = random_tokens(24)
    found = np.concatenate(list(sliced_run.logits(bundle.path, bundle.manifest, [np.array(ids)], limit)))
    assert np.abs(found - prefilled(bundle, ids)).max() < 1e-4
    tokens = sliced_run.decode(bundle.path, bundle.manifest, ids, 3, limit)
    assert tokens == [int(prefilled(bundle, [*ids, *tokens[:n]])[-1].argmax()) for n in range(3)]


@pytest.mark.parametrize(("fmt", "bits"), [("int8-b32-sym", 8), ("int4-b32", 4)])
def test_quantized_with_a_cache_of_8_bits(
    source: tuple[Path, Any], bundle: Bundle, tmp_path: Path, fmt: str, bits: int
) -> None:
    made = edgedistill.export(source[0], tmp_path / "b", format=fmt, kv_cache="int8", verify=False)
    plan = {weight.name: weight.format.bits for weight in made.manifest.weights}
    assert {plan[name] for name in ("layers.0.laurel.left", "layers.0.per_layer.gate", "altup.in")} == {bits}
    assert plan["per_layer.embed"] in (4, 8)
    assert made.manifest.kv_cache.bytes_per_token * 4 == bundle.manifest.kv_cache.bytes_per_token
    assert plan.get("layers.0.altup.predict", 32) == 32
    ids = random_tokens(24)
    whole = prefilled(bundle, ids)
    assert np.abs(prefilled(Bundle.open(made.path), ids) - whole).mean() < (0.15 if bits == 8 else 0.6) * whole.std()


def test_the_original_in_pytorch_scores_as_the_bundle_does(tmp_path: Path) -> None:
    """What ``verify`` compares with: layers without keys of their own read those of others there too."""
    model = save_random_model(tmp_path / "hf", "gemma3n_text", **SIZES | {"vocab_size_per_layer_input": 320})
    (tmp_path / "hf" / "tokenizer.json").write_text(tokenizer().to_str(), encoding="utf-8")
    write_model(tmp_path / "model.gguf", "gemma3n", model)
    weights = load_file(tmp_path / "hf" / "model.safetensors")
    unread = [name for name in weights if re.search(r"layers\.[345]\.self_attn\.(k|v)_", name)]  # not in version 5
    save_file({name: weights[name] for name in weights if name not in unread}, tmp_path / "hf" / "model.safetensors")
    made = Bundle.open(export(tmp_path / "hf", tmp_path / "b", format="fp32", kv_cache="float32").path)
    prompt, reply = load_suite("arithmetic").prompts[0], random_tokens(5)
    for name in ("hf", "model.gguf"):
        with TorchModel.open(str(tmp_path / name), stream=False) as original:
            ids = list(original.replies.encode(prompt, None).ids)
            (found,) = original.score(prompt, [reply], [Slice(0, 5)], thinking=None)
        expected = prefilled(made, [*ids, *reply[:-1]])[len(ids) - 1 :]
        assert np.abs(found - expected).max() < 1e-4


def test_what_is_not_done_says_so(
    source: tuple[Path, Any], bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = edgedistill.export(source[0], tmp_path / "b", format="int4", verify=False, check=False)
    assert made.notes == (
        "Layers of gemma3n_text have several residual streams: they are quantized without calibration.",
    )
    assert main(["inspect", str(made.path)]) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("calibration"))
    assert line.split() == ["calibration", "none"]
    with pytest.raises(UnsupportedModelError, match=r"of gemma3n_text have several.*--format and without --calib"):
        edgedistill.export(source[0], tmp_path / "out", format="int4", calibrate=True)
    with pytest.raises(UnsupportedModelError, match=r"A budget was asked for.*--format or a --quality"):
        edgedistill.export(source[0], tmp_path / "out", bits_per_weight=4.0)
    with (
        open_checkpoint(str(source[0])) as checkpoint,
        pytest.raises(UnsupportedModelError, match=r"type gemma3n_text .* tuning does not know"),
    ):
        _check_reference(bundle, checkpoint)
