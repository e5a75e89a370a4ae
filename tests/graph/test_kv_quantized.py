"""Bundles with a quantized KV cache: right numbers in it, the same behaviour around it, honest records."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from exporting import export
from parity_support import BASE, save_random_model

from edgedistill.architecture.families import build_spec
from edgedistill.bundle.bundle import GENAI_MODEL, MODEL, Bundle
from edgedistill.errors import ExportError, UsageError
from edgedistill.export.calibrate import kv_cache as kv_calibrate
from edgedistill.export.calibrate import sliced_run as sliced
from edgedistill.export.optimum.exporter import FallbackExporter
from edgedistill.profile.profile import load_profile
from edgedistill.progress import NullProgress
from edgedistill.quantize.plan import parse_format
from edgedistill.runtime.measure.selftest import selftest
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.session import DecoderSession

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.runtime.decoder import Decoder

TOKENS = np.random.default_rng(5).integers(3, 250, 90)


def initializer(path: Path, name: str) -> Any:
    import onnx_ir as ir

    value = ir.load(path).graph.initializers[name].const_value
    assert value is not None
    return value.numpy()


def prefilled(model: Model) -> Decoder:
    decoder: Any = model.session.decoder()
    decoder.feed(TOKENS.tolist(), exact=True)
    return decoder


def codes(buffer: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Signed codes of an int8 buffer, or of a uint8 one with two codes in a byte: the even one in the low nibble."""
    if buffer.dtype == np.int8:
        return buffer.astype(np.int64)
    return np.stack([buffer & 15, buffer >> 4], axis=-1).reshape(*buffer.shape[:-1], -1).astype(np.int64) - 8


@pytest.fixture(scope="module")
def reference(tiny_checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    out = tmp_path_factory.mktemp("kv") / "float32"
    return open_bundle(export(tiny_checkpoint_dir, out, format="fp32", check=False).path)


@pytest.fixture(scope="module", params=["int8", "int8 per-tensor", "int4"])
def quantized(
    request: pytest.FixtureRequest, tiny_checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> Model:
    dtype, _, scales = request.param.partition(" ")
    profile = load_profile("laptop-cpu")
    cache = dataclasses.replace(profile.kv_cache, dtype=dtype, scales=scales or "per-channel")
    profile = dataclasses.replace(profile, kv_cache=cache)
    out = tmp_path_factory.mktemp("kv") / "quantized"
    return open_bundle(export(tiny_checkpoint_dir, out, profile=profile, format="fp32").path)


def test_the_first_layer_holds_rounded_keys_and_values(reference: Model, quantized: Model) -> None:
    """Layer 0 sees the same input in both: each stored value lies within half a step of the float one."""
    exact, rounded = prefilled(reference).cache.buffers, prefilled(quantized).cache.buffers
    top = 7 if rounded[0].dtype == np.uint8 else 127
    for index, kind in enumerate(("key", "value")):
        scale = initializer(quantized.bundle.path / MODEL, f"layers.0.attn.{kind}_scale")
        want = exact[index][:, :, : len(TOKENS)]
        step = np.broadcast_to(scale if scale.ndim == 4 else scale.reshape(1, 1, 1, 1), want.shape)
        found = codes(rounded[index])[:, :, : len(TOKENS)] * step
        inside = np.abs(want) <= top * step
        assert inside.mean() > (0.99 if top == 127 else 0.9), "calibration left too little room"
        assert (np.abs(found - want)[inside] <= 0.501 * step[inside] + 1e-6).all()
        assert np.abs(codes(rounded[index])[:, :, : len(TOKENS)]).max() > top // 3, "the scale wastes the range"


def test_logits_stay_near_the_float_cache(reference: Model, quantized: Model) -> None:
    expected, found = reference.score(TOKENS.tolist()), quantized.score(TOKENS.tolist())
    limit = {"int8": 0.12, "int4": 1.5}[quantized.bundle.manifest.kv_cache.dtype]
    assert np.abs(expected - found).mean() < limit
    assert (expected != found).any(), "nothing was quantized"


def test_exact_mode_batches_and_sessions_agree_bit_for_bit(quantized: Model) -> None:
    result = selftest(quantized.bundle.path)
    assert result.passed, [check for check in result.checks if check.held is False]


def test_rows_are_copied_with_their_codes(quantized: Model) -> None:
    decoder = prefilled(quantized)
    batch = decoder.select([0, 0, 0])
    assert batch.cache.buffers[0].dtype == decoder.cache.buffers[0].dtype
    logits = batch.step(np.array([[7], [7], [9]]))[:, 0]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert (logits[0] != logits[2]).any()
    target: Any = cast(DecoderSession, quantized.session).decoder(2)
    target.cache.put_row(1, decoder.cache, 0, 40)
    np.testing.assert_array_equal(target.cache.buffers[1][1, :, :40], decoder.cache.buffers[1][0, :, :40])


def test_manifest_budget_and_buffers_agree_on_the_bytes(reference: Model, quantized: Model) -> None:
    info, full = quantized.bundle.manifest.kv_cache, reference.bundle.manifest.kv_cache
    divisor = {"int8": 4, "int4": 8}[info.dtype]
    assert info.bytes_per_token * divisor == full.bytes_per_token
    decoder = prefilled(quantized)
    assert decoder.kv_bytes == info.bytes_per_token * decoder.cache.capacity
    predicted = quantized.bundle.manifest.predicted
    assert predicted["kv_bytes"] == info.bytes_per_token * predicted["context_length"]
    assert (info.margin, info.calibration) == (1.3 if divisor == 4 else 0.8, "own texts")
    assert info.calibration_tokens > 100
    assert full.scales is None


def test_the_second_graph_keeps_its_float_cache(reference: Model, quantized: Model) -> None:
    import onnx_ir as ir

    graph = ir.load(quantized.bundle.path / GENAI_MODEL).graph
    assert {v.dtype for v in graph.inputs if (v.name or "").startswith("past")} == {ir.DataType.FLOAT}
    ours, theirs = (model.bundle.path / GENAI_MODEL for model in (reference, quantized))
    assert ours.read_bytes() == theirs.read_bytes()


def test_an_export_twice_gives_the_same_bytes(quantized: Model, tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    if quantized.bundle.manifest.kv_cache.dtype != "int8" or quantized.bundle.manifest.kv_cache.scales != "per-channel":
        pytest.skip("one format is enough")
    again = export(tiny_checkpoint_dir, tmp_path / "again", format="fp32", kv_cache="int8").path
    hashes = [{f.name: f.sha256 for f in Bundle.open(path).manifest.files} for path in (quantized.bundle.path, again)]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("family", ["gemma3_text", "gemma2", "smollm3", "qwen2", "mistral", "hunyuan_v1_dense"])
def test_families_keep_their_logits(family: str, tmp_path: Path) -> None:
    """Sliding windows, soft caps, layers without RoPE, biases: the quantized kernel knows them all."""
    save_random_model(tmp_path / "hf", family, vocab_size=300, sliding_window=12)
    (tmp_path / "hf" / "tokenizer.json").write_text(json.dumps(_TOKENIZER), encoding="utf-8")
    models = [
        open_bundle(export(tmp_path / "hf", tmp_path / kv, format="fp32", kv_cache=kv, check=False).path)
        for kv in ("float32", "int8")
    ]
    ids = TOKENS[:60].tolist()
    expected, found = (model.score(ids) for model in models)
    assert np.abs(expected - found).mean() < 0.1 * np.abs(expected).std()
    assert (expected != found).any()


def test_slices_see_the_same_maxima_as_the_whole(reference: Model) -> None:
    sequences = [TOKENS[:40].tolist(), TOKENS[20:50].tolist()]
    inv_freq = [None] * reference.bundle.manifest.model.num_hidden_layers
    whole = kv_calibrate.maxima_of(kv_calibrate._through_session(reference, sequences, NullProgress()), inv_freq, 512)
    pieces = sliced.sweep(reference.bundle.path, reference.bundle.manifest, sequences, limit=1)
    in_slices = kv_calibrate.maxima_of(pieces, inv_freq, 512)
    for expected, found in zip(whole, in_slices, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert {p.name for p in reference.bundle.path.iterdir()} == {
        "manifest.json", *(f.name for f in reference.bundle.manifest.files)
    }  # fmt: skip


@pytest.mark.parametrize("context", [64, 4096])
def test_keys_are_turned_back_by_the_frequencies_that_the_graph_has(context: int) -> None:
    """LongRoPE has two sets, one of them for contexts of more than 64 tokens here."""
    rope = {"rope_type": "longrope", "factor": 64.0, "original_max_position_embeddings": 64}
    rope |= {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    spec = build_spec(BASE | {"model_type": "llama", "max_position_embeddings": 4096, "rope_scaling": rope})
    found = kv_calibrate.frequencies(spec, context)
    expected = (10000.0 ** -(np.arange(0, 16, 2) / 16)) / (1.0 if context == 64 else 4.0)
    assert len(found) == 3
    for frequencies in found:
        assert frequencies is not None
        np.testing.assert_allclose(frequencies, expected, rtol=1e-5)


def test_keys_that_are_normed_behind_rope_turn_without_the_weights_of_the_norm() -> None:
    """Hunyuan: short texts never see what the second of a slow pair of channels becomes, by its own weight."""
    angles, weights = np.arange(10) * 0.001, np.array([-0.5, 8.0], np.float32)
    keys = (weights * np.stack([np.cos(angles), np.sin(angles)], axis=-1)).astype(np.float32)[None]
    key, value = kv_calibrate.maxima_of([(0, keys, keys)], [[0.001]], 4096, [weights.tolist()])
    np.testing.assert_allclose(key[0], [[0.5, 8.0]], rtol=1e-5)
    np.testing.assert_allclose(value[0], np.abs(keys).max(axis=1))
    key, _ = kv_calibrate.maxima_of([(0, keys * [1, 0], keys)], [[0.001]], 4096, [[-0.5, 0.0]])
    np.testing.assert_allclose(key[0], [[0.5, 0.0]], rtol=1e-5)


def test_the_trial_in_slices_knows_the_quantized_cache(quantized: Model) -> None:
    whole = sliced.decode(quantized.bundle.path, quantized.bundle.manifest, TOKENS[:9].tolist(), 3)
    assert sliced.decode(quantized.bundle.path, quantized.bundle.manifest, TOKENS[:9].tolist(), 3, limit=1) == whole


def test_given_sequences_replace_the_models_own(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    from edgedistill.checkpoint.open import open_checkpoint
    from edgedistill.export.native import OwnExporter
    from edgedistill.progress import NullProgress

    path = export(tiny_checkpoint_dir, tmp_path / "b", format="fp32", check=False).path
    manifest = Bundle.open(path).manifest
    profile = load_profile("laptop-cpu").with_overrides(kv_cache="int8")
    with open_checkpoint(str(tiny_checkpoint_dir)) as checkpoint:
        exporter = OwnExporter(checkpoint, profile)
        told = exporter.quantize_cache(path, manifest, [TOKENS[:30], TOKENS[:20]], NullProgress())
    assert (told.kv_cache.calibration, told.kv_cache.calibration_tokens) == ("given", 50)


def test_failures_are_one_clear_error(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    path = export(tiny_checkpoint_dir, tmp_path / "b", format="fp32", check=False).path
    bundle = Bundle.open(path)
    (path / MODEL).write_bytes(b"not a graph")
    profile = load_profile("laptop-cpu").with_overrides(kv_cache="int8")
    from edgedistill.checkpoint.open import open_checkpoint
    from edgedistill.export.native import OwnExporter
    from edgedistill.progress import NullProgress

    with open_checkpoint(str(tiny_checkpoint_dir)) as checkpoint:
        exporter = OwnExporter(checkpoint, profile)
        with pytest.raises(ExportError, match="Calibrating the KV cache failed"):
            exporter.quantize_cache(path, bundle.manifest, None, NullProgress())
        pytest.importorskip("optimum")
        with pytest.raises(UsageError, match="float32 KV cache"):
            FallbackExporter(checkpoint, profile)
        with pytest.raises(UsageError, match="has weight-only formats"):
            FallbackExporter(checkpoint, load_profile("laptop-cpu").with_overrides(weight_format=parse_format("w8a8")))


_TOKENIZER: dict[str, Any] = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
    "pre_tokenizer": None, "post_processor": None, "decoder": None,
    "model": {"type": "BPE", "vocab": {chr(97 + i): i for i in range(26)}, "merges": []},
}  # fmt: skip
