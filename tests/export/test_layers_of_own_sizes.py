"""Gemma 4 from end to end: heads of two sizes, layers that read another's keys, a second embedding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoint_fixtures import TEXT, tokenizer
from exporting import export
from family_cases import CASES
from parity_support import random_tokens, reference_logits, save_random_model
from runtime_support import continued, prefilled
from tokenizers import Tokenizer

import edgedistill
from edgedistill.bundle.bundle import Bundle
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import BundleError, UnsupportedModelError
from edgedistill.export.calibrate import sliced_run
from edgedistill.export.layouts import check
from edgedistill.quantize.gptq import QUICK
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


def test_a_bundle_of_floats_is_no_distance_from_the_original(source: tuple[Path, Any], tmp_path: Path) -> None:
    made = edgedistill.export(source[0], tmp_path / "b", format="fp32", kv_cache="float32", verify=False)
    assert made.manifest.distance["kl"] < 1e-6
    assert made.manifest.distance["top1"] == 1.0


def test_greedy_64_tokens_of_the_runtime(source: tuple[Path, Any], bundle: Bundle) -> None:
    """Past the window, over the runtime's shared buffers, which layers without keys write as well."""
    tokens, found = continued(bundle, random_tokens(30), 64)
    expected = reference_logits(source[1], tokens[:-1])[29:]
    assert tokens[30:] == expected.argmax(axis=1).tolist()
    assert np.abs(found - expected).max() < 1e-4


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
    assert 0 < made.manifest.distance["kl"] < 0.1
    ids = random_tokens(24)
    whole = prefilled(bundle, ids)
    assert np.abs(prefilled(Bundle.open(made.path), ids) - whole).mean() < 0.1 * whole.std()


@pytest.mark.parametrize("thorough", [False, True])
def test_calibration_brings_the_logits_nearer(
    source: tuple[Path, Any], bundle: Bundle, tmp_path: Path, *, thorough: bool
) -> None:
    """Past layers that read another's keys: every matrix of the layers, those of the second embedding too."""
    rng = np.random.default_rng(0)
    words = " ".join(TEXT).split()
    texts = tmp_path / "texts.txt"
    texts.write_text(" ".join(rng.choice(words, 1500)), encoding="utf-8")
    how: dict[str, Any] = {"calibration": texts} | ({} if thorough else {"gptq": QUICK})
    made = edgedistill.export(
        source[0], tmp_path / "b", format="int4-b32", kv_cache="float32", verify=False, check=False, **how
    )
    plain = export(source[0], tmp_path / "plain", format="int4-b32", kv_cache="float32", check=False)
    methods = {w.name: w.format.method for w in made.manifest.weights if not w.format.is_float}
    assert methods.pop("per_layer.embed") == methods.pop("per_layer.in") == methods.pop("embed") == "search"
    assert set(methods.values()) == {"gptq"}
    assert not made.manifest.calibration["failed"]
    reader = Tokenizer.from_file(str(source[0] / "tokenizer.json"))
    ids = reader.encode(" ".join(rng.choice(words, 60))).ids[:90]
    whole = prefilled(bundle, ids)

    def error(directory: Path) -> float:
        return float(np.square(prefilled(Bundle.open(directory), ids) - whole).mean())

    assert error(made.path) < (0.7 if thorough else 0.95) * error(plain.path)
    assert not list(made.path.glob(".*"))


def test_what_is_not_done_says_so(source: tuple[Path, Any], bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"layers of gemma4_text share keys.*--format or a --quality"):
        edgedistill.export(source[0], tmp_path / "out", bits_per_weight=4.0)
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
