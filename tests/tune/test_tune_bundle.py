"""Tuning a real bundle of a tiny random model: what changes, what does not, and runs that end in the middle."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exporting import export

from edgedistill.bundle.bundle import MANIFEST, MODEL, WEIGHTS, Bundle
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import BundleError, CalibrationError, EdgedistillError, OutputError, UsageError
from edgedistill.profile.profile import Profile, load_profile
from edgedistill.progress import NullProgress
from edgedistill.quantize.plan import Rule, parse_format
from edgedistill.runtime.model import open_bundle
from edgedistill.tune.arrays import StoredArrays
from edgedistill.tune.loop import Trainer
from edgedistill.tune.options import TuneOptions
from edgedistill.tune.pipeline import tune_bundle

QUICK = TuneOptions(steps=24, batch_tokens=512, length=96, evaluate_every=8, learning_rate=0.01, norm_rate=0.01)


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = random.Random(0)
    words = ["tide", "bread", "clock", "list", "seven", "and", "of", "moon", "was", "not"]
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(generator.choice(words) for _ in range(600)))
    return path


def make(checkpoint: Path, out: Path, text: str = "int3-b32-asym-search", **rules: str) -> Path:
    profile = load_profile("laptop-cpu")
    chosen = tuple(Rule(match, parse_format(fmt)) for match, fmt in rules.items())
    weights = dataclasses.replace(profile.weights, default=parse_format(text), rules=chosen)
    changed: Profile = dataclasses.replace(profile, weights=weights)
    return export(checkpoint, out, profile=changed, check=False).path


@pytest.fixture(scope="module")
def coarse(tiny_checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tiny_checkpoint_dir, tmp_path_factory.mktemp("coarse") / "coarse")


def stored(bundle: Path) -> dict[str, bytes]:
    arrays = StoredArrays(bundle / MODEL)
    return {name: arrays.read(bundle, name).tobytes() for name in arrays.places}


def test_the_divergence_falls_and_only_scales_and_vectors_differ(
    coarse: Path, tiny_checkpoint_dir: Path, text_file: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in coarse.iterdir()}
    result = tune_bundle(
        coarse, tmp_path / "out", reference=tiny_checkpoint_dir, calibration=text_file, options=QUICK
    )  # fmt: skip
    assert result.after.kl < 0.9 * result.before.kl
    assert {path.name: path.read_bytes() for path in coarse.iterdir()} == before

    old, new = stored(coarse), stored(tmp_path / "out")
    assert old.keys() == new.keys()
    differ = {name for name in old if old[name] != new[name]}
    assert differ == set(result.changed)
    assert any(name.endswith(".scales") for name in differ)
    assert "final_norm" in differ
    for name in differ:
        assert name.endswith(".scales") or "norm" in name, name
    # Outside those arrays, the padding of the file included, no byte is different.
    places = StoredArrays(coarse / MODEL).places
    a, b = (np.fromfile(path / WEIGHTS, np.uint8) for path in (coarse, tmp_path / "out"))
    other = np.ones(len(a), np.bool_)
    for name in differ:
        size = len(old[name])
        other[places[name].offset : places[name].offset + size] = False
    assert (a[other] == b[other]).all()
    assert len(a) == len(b)

    bundle = Bundle.open(tmp_path / "out", check="full")
    tuning = bundle.manifest.tuning
    assert tuning["after"]["kl"] == result.after.kl
    assert tuning["options"]["steps"] == QUICK.steps
    assert bundle.manifest.weights == Bundle.open(coarse).manifest.weights
    assert "## Tuning" in (tmp_path / "out" / "README.md").read_text()
    with open_bundle(tmp_path / "out") as model:
        model.generate("What is 2 + 2?", settings=model.default_settings.replace(max_new_tokens=3))


def interrupted_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    real = Trainer._update

    def update(self: Trainer) -> None:
        if self.state.step == steps:
            raise KeyboardInterrupt
        real(self)

    monkeypatch.setattr(Trainer, "_update", update)


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    coarse: Path, tiny_checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path / "cache"))
    options = dataclasses.replace(
        QUICK, steps=12, evaluate_every=4, zero_point_rate=0.05, on_policy=0.5, redraw=6, sequences=4, length=64
    )
    whole = tune_bundle(coarse, tmp_path / "whole", reference=tiny_checkpoint_dir, options=options)
    for steps, killed in ((3, False), (9, True)):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupted_after(patch, steps)
            if killed:  # no time for a last checkpoint: the one of step 3 is taken up
                patch.setattr(Trainer, "_save", lambda _: None)
            tune_bundle(coarse, tmp_path / "parts", reference=tiny_checkpoint_dir, options=options)
        assert not (tmp_path / "parts").exists()
        assert (tmp_path / ".parts.partial" / ".tuning.pt").is_file()
    parts = tune_bundle(coarse, tmp_path / "parts", reference=tiny_checkpoint_dir, options=options)
    assert not (tmp_path / ".parts.partial").exists()
    assert parts.looks == whole.looks
    assert parts.after == whole.after
    assert (tmp_path / "parts" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    assert {path.name for path in (tmp_path / "parts").iterdir()} == {path.name for path in coarse.iterdir()}


def test_a_run_with_other_settings_starts_anew(
    coarse: Path, tiny_checkpoint_dir: Path, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"reference": tiny_checkpoint_dir, "calibration": text_file}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted_after(patch, 2)
        tune_bundle(coarse, tmp_path / "out", options=QUICK, **arguments)
    other = dataclasses.replace(QUICK, steps=2, seed=5)
    assert tune_bundle(coarse, tmp_path / "out", options=other, **arguments).steps == 2


def test_it_ends_early_where_nothing_is_gained_and_keeps_the_best(
    coarse: Path, tiny_checkpoint_dir: Path, text_file: Path, tmp_path: Path
) -> None:
    # A rate so large that every look is worse than the first.
    options = dataclasses.replace(QUICK, steps=400, evaluate_every=2, patience=2, learning_rate=1.0, norm_rate=0.5)
    result = tune_bundle(
        coarse, tmp_path / "out", reference=tiny_checkpoint_dir, calibration=text_file, options=options
    )
    assert result.reason == "early stop"
    assert result.steps < 400
    assert result.best_step == min(result.looks, key=lambda look: look.kl).step
    assert result.after.kl <= result.before.kl


FORMATS = {
    "mixed": ("int4-b32-asym-search", {"embed": "int8-b64-sym-rtn", "*.mlp.down": "fp32", "*.attn.o": "int2-b16-asym"}),
    "narrow": ("int6-b32-asym-s8", {"*.mlp.*": "int5-b32-sym-s8", "*.attn.qkv": "int3-b32-asym-s32"}),
    "float embedding": ("int4-b128-sym-rtn", {"embed": "fp32"}),
    "w8a8": ("int4-b32", {"*.mlp.*": "w8a8-asym"}),
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tied", [True, False])
def test_the_module_computes_what_the_bundle_computes(
    name: str, tied: bool, tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    from edgedistill.architecture.families import build_spec, logical_weights
    from edgedistill.architecture.tensors import model_tensors
    from edgedistill.tune import kernels
    from edgedistill.tune.student import Student
    from edgedistill.tune.teacher import padded

    source = tiny_checkpoint_dir if tied else untied(tiny_checkpoint_dir, tmp_path / "untied")
    default, rules = FORMATS[name]
    exact = {match: fmt if fmt.startswith(("fp32", "w8a8")) else f"{fmt}-acc1" for match, fmt in rules.items()}
    path = make(source, tmp_path / "bundle", f"{default}-acc1", **exact)
    bundle = Bundle.open(path)
    with open_checkpoint(str(source)) as checkpoint:
        spec = build_spec(checkpoint.config)
        formats = {weight.name: weight.format for weight in bundle.manifest.weights}
        student = Student(
            path, StoredArrays(path / MODEL), formats, spec, logical_weights(spec),
            model_tensors(checkpoint.config, spec, checkpoint.tensors), context=256, train_zero_points=True,
        )  # fmt: skip
    assert student.frozen == [n for n, fmt in formats.items() if fmt.is_w8a8]
    ids = np.random.default_rng(0).integers(0, spec.vocab_size, 20)
    hidden = student.hidden(padded([ids]))[0].detach()
    with open_bundle(path) as model:
        (scores,) = model.session.decoder().score(ids[None], chunk=64)
    head = student.head
    weight = head.dequantize()[:, : spec.hidden_size] if isinstance(head, kernels.BlockMatrix) else head
    found = (hidden @ weight.T).numpy()
    rounding = 0.03 if student.frozen else 0.002  # W8A8 rounds activations, the module does not
    np.testing.assert_allclose(found, scores.logits, atol=rounding * np.abs(scores.logits).max())
    arrays = StoredArrays(path / MODEL)
    for array, values in student.arrays():
        np.testing.assert_allclose(values, arrays.read(path, array), rtol=1e-6, err_msg=array)


def untied(source: Path, out: Path) -> Path:
    """A copy of a checkpoint with a head of its own."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    tensors = load_file(out / "model.safetensors")
    tensors["lm_head.weight"] = np.ascontiguousarray(tensors["model.embed_tokens.weight"][::-1])
    save_file(tensors, out / "model.safetensors")
    return out


def altered(bundle: Path, out: Path, **model: str) -> Path:
    """A copy with another manifest."""
    shutil.copytree(bundle, out)
    manifest = json.loads((out / MANIFEST).read_text())
    manifest["model"] |= model
    (out / MANIFEST).write_text(json.dumps(manifest))
    return out


def test_what_cannot_be_tuned(coarse: Path, tiny_checkpoint_dir: Path, text_file: Path, tmp_path: Path) -> None:
    def refused(kind: type[EdgedistillError], bundle: Path, **changes: object) -> str:
        arguments = {"out": tmp_path / "out", "reference": tiny_checkpoint_dir, "options": QUICK} | changes
        with pytest.raises(kind) as caught:
            tune_bundle(bundle, **arguments)  # type: ignore[arg-type]
        assert caught.value.hint
        assert not (tmp_path / "out").exists()
        return caught.value.message

    plain = make(tiny_checkpoint_dir, tmp_path / "plain", "fp32")
    assert "nothing to tune" in refused(UsageError, plain)
    assert "fallback exporter" in refused(BundleError, altered(coarse, tmp_path / "optimum", signature="optimum"))
    assert "llama" in refused(BundleError, altered(coarse, tmp_path / "llama", family="llama"))
    assert "different weights" in refused(BundleError, coarse, reference="tiny-reasoner")
    assert "lm_head" in refused(BundleError, coarse, reference=untied(tiny_checkpoint_dir, tmp_path / "untied"))
    assert "already holds" in refused_existing(coarse, plain, tiny_checkpoint_dir)
    (tmp_path / "short.txt").write_text("too short")
    assert "expected at least" in refused(CalibrationError, coarse, calibration=tmp_path / "short.txt")


def refused_existing(bundle: Path, out: Path, reference: Path) -> str:
    with pytest.raises(OutputError) as caught:
        tune_bundle(bundle, out, reference=reference, options=QUICK)
    return caught.value.message


def test_a_bundle_whose_graph_computes_something_else_is_refused(
    coarse: Path, tiny_checkpoint_dir: Path, text_file: Path, tmp_path: Path
) -> None:
    config = json.loads((tiny_checkpoint_dir / "config.json").read_text())
    other = tmp_path / "other"
    shutil.copytree(tiny_checkpoint_dir, other)
    # The same shapes, other arithmetic.
    (other / "config.json").write_text(json.dumps({**config, "rope_theta": 3.0, "rms_norm_eps": 0.5}))
    with pytest.raises(BundleError, match="something else"):
        tune_bundle(
            coarse, tmp_path / "out", reference=other, calibration=text_file,
            options=dataclasses.replace(QUICK, steps=50), progress=NullProgress(),
        )  # fmt: skip


@pytest.mark.parametrize(
    "wrong", [{"steps": 0}, {"on_policy": 1.5}, {"steps": 3, "minutes": 1.0}, {"learning_rate": -1.0}]
)
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        TuneOptions(**wrong)  # type: ignore[arg-type]
