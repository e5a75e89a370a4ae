"""Smoothing: the folded model is the same model, and W8A8 loses less of one with outliers."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from exporting import export
from family_cases import CASES
from parity_support import save_random_model

from edgedistill.bundle.bundle import Bundle
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.export import native as own
from edgedistill.export.calibrate import smoothquant as smooth_calibrate
from edgedistill.export.calibrate.smoothing import Fold, Group, folds, groups
from edgedistill.export.native import OwnExporter
from edgedistill.profile.profile import load_profile
from edgedistill.progress import NullProgress
from edgedistill.quantize.plan import parse_format
from edgedistill.runtime.model import open_bundle

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = np.random.default_rng(2).integers(3, 60, 40).tolist()
TOKENIZER = (
    '{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null, '
    '"pre_tokenizer": null, "post_processor": null, "decoder": null, '
    '"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "h": 2, "i": 3, "t": 4, "e": 5}, "merges": []}}'
)


def outlier_checkpoint(directory: Path, family: str) -> Path:
    """Two channels behind every norm, and two inside every MLP, are a hundred times larger than the rest."""
    torch = pytest.importorskip("torch")
    model = save_random_model(directory, family, tie_word_embeddings=False)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("input_layernorm.weight", "post_attention_layernorm.weight")):
                parameter[[3, 17]] *= 100
            elif name.endswith("up_proj.weight"):
                parameter[[5, 40]] *= 100
            elif name.endswith("down_proj.weight"):
                parameter[:, [5, 40]] /= 100
            elif name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight")):
                parameter[:, [3, 17]] /= 100
            if name.endswith("up_proj.weight"):
                parameter[:, [3, 17]] /= 100
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_text(TOKENIZER, encoding="utf-8")
    return directory


def logits(path: Path) -> np.ndarray[Any, Any]:
    decoder: Any = open_bundle(path).session.decoder()
    return np.concatenate([part.logits.copy() for part in decoder.score(np.array([TOKENS]), chunk=64)])


# Groups that take factors: in a layer, and behind it where the head is not tied.
GROUPS = {
    "qwen3": 3, "gemma3_text": 3, "llama": 3,
    "olmo2": 1,  # norms behind the matrices take none
    "cohere2": 2,  # one norm before attention and MLP
    "glm4": 3, "phi3": 3, "granite": 3,
    "nemotron": 2, "apertus": 2,  # no product before the last matrix
    "gemma3n_text": 2,  # what stands beside attention reads the first norm, too, and adds it
    "qwen2_moe": 1,  # a router reads the second norm
    "stablelm": 2,  # in parallel
    "lfm2": 3,
}  # fmt: skip
SPECIAL: dict[str, dict[str, Any]] = {
    "llama": {"mlp_bias": True},
    "granite": {"residual_multiplier": 0.6, "logits_scaling": 1.5},
    "gemma3n_text": CASES["gemma3n"][1],
    "qwen2_moe": CASES["qwen2_moe"][1],
    "stablelm": CASES["stablelm-parallel"][1],
    "lfm2": CASES["lfm2"][1],
}


@pytest.mark.parametrize("family", GROUPS)
def test_folded_weights_make_the_same_model(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, where nothing is rounded: random factors on every group cancel out."""
    values: dict[str, Any] = {"hidden_size": 64, "head_dim": 16} | SPECIAL.get(family, {})
    save_random_model(tmp_path / "hf", family, tie_word_embeddings=False, **values)
    (tmp_path / "hf" / "tokenizer.json").write_text(TOKENIZER, encoding="utf-8")
    plain = export(tmp_path / "hf", tmp_path / "plain", format="fp32", check=False).path
    with open_checkpoint(str(tmp_path / "hf")) as checkpoint:
        planned = OwnExporter(
            checkpoint, load_profile("laptop-cpu").with_overrides(weight_format=parse_format("w8a8"))
        ).plan
    chosen = groups(planned.spec, planned.planned.by_name())
    assert len(chosen) == GROUPS[family] * planned.spec.num_hidden_layers + 1
    rng = np.random.default_rng(0)
    by_name = {weight.name: weight.shape for weight in planned.weights}
    widths = {group.value: by_name[group.consumers[0]][1] for group in chosen}
    activations = {value: rng.uniform(0.1, 50, k).astype(np.float32) for value, k in widths.items()}
    matrices = {n: np.ones(by_name[n][1], np.float32) for group in chosen for n in group.consumers}
    found = folds(chosen, activations, matrices, alpha=1.0)
    monkeypatch.setattr(smooth_calibrate, "prepare", lambda *_, **__: found)
    folded = export(tmp_path / "hf", tmp_path / "folded", format="fp32", check=False).path
    assert (plain / "weights.bin").read_bytes() != (folded / "weights.bin").read_bytes()
    np.testing.assert_allclose(logits(folded), logits(plain), atol=2e-3)


def test_smoothing_saves_a_model_with_outliers_and_leaves_nothing_behind(tmp_path: Path) -> None:
    source = outlier_checkpoint(tmp_path / "hf", "qwen3")
    profile = load_profile("laptop-cpu").with_overrides(weight_format=parse_format("w8a8-sym"))
    rough = dataclasses.replace(profile, weights=dataclasses.replace(profile.weights, smoothing=0.0))
    reference = logits(export(source, tmp_path / "fp32", format="fp32", check=False).path)
    smoothed = export(source, tmp_path / "smooth", profile=profile).path
    error = np.abs(logits(smoothed) - reference).mean()
    unsmoothed = np.abs(logits(export(source, tmp_path / "rough", profile=rough, check=False).path) - reference).mean()
    assert error < 0.5 * unsmoothed
    listed = {f.name for f in Bundle.open(smoothed).manifest.files}
    assert {p.name for p in smoothed.iterdir()} == listed | {"manifest.json"}


def test_a_resumed_export_keeps_what_was_observed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = outlier_checkpoint(tmp_path / "hf", "qwen3")
    whole = export(source, tmp_path / "whole", format="w8a8", check=False).path
    write, calls = own._write_weights, []

    def interrupted(*args: Any) -> int:
        calls.append(args)
        if len(calls) == 2:  # after the weights of the run that observes
            raise KeyboardInterrupt
        return write(*args)

    monkeypatch.setattr(own, "_write_weights", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(source, tmp_path / "out", format="w8a8", check=False)
    assert (tmp_path / ".out.partial" / ".smoothing.npz").is_file()
    resumed = export(source, tmp_path / "out", format="w8a8", check=False).path
    assert len(calls) == 3, "the activations were observed a second time"
    assert (resumed / "weights.bin").read_bytes() == (whole / "weights.bin").read_bytes()


def test_factors_follow_the_formula_and_cancel() -> None:
    group = Group("x", ("w",), ("norm",))
    got = folds([group], {"x": np.array([4, 1, 1], np.float32)}, {"w": np.array([1, 1, 4], np.float32)}, 0.5)
    columns, rows = got["w"].columns, got["norm"].rows
    assert columns is not None
    assert rows is not None
    np.testing.assert_allclose(columns / columns[1], [2, 1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(columns * rows, 1, rtol=1e-6)
    dead = folds([group], {"x": np.array([0, 1, 1], np.float32)}, {"w": np.zeros(3, np.float32)}, 0.5)
    columns = dead["w"].columns
    assert columns is not None
    assert np.isfinite(columns).all()
    with pytest.raises(ValueError, match="not finite"):
        folds([group], {"x": np.array([np.nan, 1, 1], np.float32)}, {"w": np.ones(3, np.float32)})


def test_folds_apply_to_slices_of_rows() -> None:
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    fold = Fold(rows=np.array([1, 2, 3, 4], np.float32), columns=np.array([1, 10, 100], np.float32))
    whole = fold.apply(values, 0)
    np.testing.assert_array_equal(whole, np.concatenate([fold.apply(values[:1], 0), fold.apply(values[1:], 1)]))
    np.testing.assert_array_equal(whole[2], values[2] * [3, 30, 300])
    np.testing.assert_array_equal(Fold(rows=fold.rows).apply(np.ones(2, np.float32), 1), [2, 3])


def test_nothing_is_observed_without_w8a8(
    tiny_checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smooth_calibrate, "_observe", lambda *_: pytest.fail("observed"))
    export(tiny_checkpoint_dir, tmp_path / "out", format="int8", check=False)
    with open_checkpoint(str(tiny_checkpoint_dir)) as checkpoint:
        made = OwnExporter(checkpoint, load_profile("laptop-cpu"))
        made.make(tmp_path, resume=False, progress=NullProgress())
