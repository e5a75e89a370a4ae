"""Gemma 4 from end to end: heads of two sizes, layers that read another's keys, a second embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoint_fixtures import tokenizer
from exporting import export
from family_cases import CASES
from parity_support import random_tokens, reference_logits, save_random_model

import edgedistill
from edgedistill.bundle.bundle import Bundle
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import BundleError, UnsupportedModelError
from edgedistill.export.calibrate import sliced_run
from edgedistill.export.layouts import check
from edgedistill.runtime.session import DecoderSession
from edgedistill.tune.pipeline import _check_reference

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytestmark = pytest.mark.next

SIZES = CASES["gemma4"][1] | {"vocab_size": 320, "vocab_size_per_layer_input": 330, "hidden_size": 64}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    directory = tmp_path_factory.mktemp("gemma4")
    model = save_random_model(directory, "gemma4_text", **SIZES)
    (directory / "tokenizer.json").write_text(tokenizer().to_str(), encoding="utf-8")
    return directory, model


@pytest.fixture(scope="module")
def bundle(source: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("bundles") / "fp32"
    return Bundle.open(export(source[0], out, format="fp32", kv_cache="float32").path)


def prefilled(bundle: Bundle, ids: list[int]) -> np.ndarray:
    return DecoderSession(bundle).decoder().feed_all(ids, exact=True)


def test_greedy_64_tokens_of_the_runtime(source: tuple[Path, Any], bundle: Bundle) -> None:
    """Past the window, over the runtime's shared buffers, which layers without keys write as well."""
    decoder = DecoderSession(bundle).decoder()
    tokens = random_tokens(30)
    logits = decoder.feed_all(tokens, exact=True)[-1]
    found = []
    for _ in range(64):
        found.append(logits.copy())
        tokens = [*tokens, int(logits.argmax())]
        logits = decoder.feed_all(tokens[-1:], exact=True)[-1]
    expected = reference_logits(source[1], tokens[:-1])[29:]
    assert tokens[30:] == expected.argmax(axis=1).tolist()
    assert np.abs(np.stack(found) - expected).max() < 1e-4


def test_only_layers_with_keys_of_their_own_have_a_cache(bundle: Bundle) -> None:
    model = bundle.manifest.model
    assert model.attention_layers == (0, 1, 2)
    assert model.cache_head_dims == (16, 32, 16)
    assert model.readers == ((3, 1), (4, 2), (5, 1))
    cache = DecoderSession(bundle).decoder().cache
    assert [buffer.shape[3] for buffer in cache.buffers] == [16, 16, 32, 32, 16, 16]
    assert cache.geometry.bytes_per_token == bundle.manifest.kv_cache.bytes_per_token == 2 * 4 * 2 * (16 + 32 + 16)


@pytest.mark.parametrize("limit", [1, 100_000])
def test_slices_give_what_the_whole_gives(bundle: Bundle, limit: int) -> None:
    ids = random_tokens(24)
    found = np.concatenate(list(sliced_run.logits(bundle.path, bundle.manifest, [np.array(ids)], limit)))
    whole = prefilled(bundle, ids)
    assert np.abs(found - whole).max() < 1e-4
    tokens = sliced_run.decode(bundle.path, bundle.manifest, ids, 4, limit)
    assert tokens == [int(prefilled(bundle, [*ids, *tokens[:n]])[-1].argmax()) for n in range(4)]


def test_a_cache_of_8_bits_and_its_calibration_in_slices(
    source: tuple[Path, Any], bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Bundle.open(export(source[0], tmp_path / "int8", format="fp32", kv_cache="int8").path)
    assert small.manifest.kv_cache.bytes_per_token * 4 == bundle.manifest.kv_cache.bytes_per_token
    ids = random_tokens(24)
    whole = prefilled(bundle, ids)
    assert 1e-4 < np.abs(prefilled(small, ids) - whole).mean() < 0.1 * whole.std()
    cached = list(sliced_run.sweep(bundle.path, bundle.manifest, [ids], 1))
    assert [(layer, keys.shape) for layer, keys, _ in cached] == [(0, (2, 24, 16)), (1, (2, 24, 32)), (2, (2, 24, 16))]


def test_quantized_with_a_second_form_for_prompts(source: tuple[Path, Any], bundle: Bundle, tmp_path: Path) -> None:
    made = edgedistill.export(source[0], tmp_path / "b", format="int8-b32-sym", prefill="w8a8", verify=False)
    assert {w.name: w.format.bits for w in made.manifest.weights}["per_layer.embed"] == 8
    assert made.manifest.distance == {}
    ids = random_tokens(24)
    whole = prefilled(bundle, ids)
    assert np.abs(prefilled(Bundle.open(made.path), ids) - whole).mean() < 0.1 * whole.std()


def test_the_default_is_not_calibrated_and_says_so(source: tuple[Path, Any], tmp_path: Path) -> None:
    made = edgedistill.export(source[0], tmp_path / "b", format="int4", verify=False, check=False)
    assert made.notes == ("Layers of gemma4_text share keys: they are quantized without calibration.",)
    assert made.manifest.calibration == {}


def test_what_is_not_done_says_so(source: tuple[Path, Any], bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"layers of gemma4_text share keys.*--format and without --calib"):
        edgedistill.export(source[0], tmp_path / "out", format="int4", calibrate=True)
    assert not (tmp_path / "out").exists()
    with (
        open_checkpoint(str(source[0])) as checkpoint,
        pytest.raises(UnsupportedModelError, match=r"type gemma4_text .* tuning does not know"),
    ):
        _check_reference(bundle, checkpoint)
    for layout in ("genai", "optimum"):
        with pytest.raises(BundleError, match="layers share keys or differ in size"):
            check(bundle, layout)
    assert not (bundle.path / "genai_config.json").exists()
    assert "share keys or differ in size" in (bundle.path / "README.md").read_text(encoding="utf-8")
