"""References: the original in PyTorch, another bundle, a baseline file; each refused where it does not fit."""

from __future__ import annotations

import dataclasses
import hashlib
from contextlib import closing
from typing import Any, cast

import numpy as np
import pytest
from engine_support import SETTINGS

from edgedistill.errors import OutputError, VerifyError
from edgedistill.verify.models.bundle import BundleModel
from edgedistill.verify.references.baseline import BaselineModel, other_versions
from edgedistill.verify.references.baseline_file import Baseline
from edgedistill.verify.references.open import open_reference, original_name
from edgedistill.verify.scoring import compare_on
from edgedistill.verify.suites.registry import load_suite

EXACT = SETTINGS.replace(numerics="exact")


@pytest.fixture(scope="module")
def suite():
    return load_suite("arithmetic")


@pytest.fixture(scope="module")
def drawn(sampled, prompts):
    return list(sampled("fp32", batch=8).draw(prompts, 4, EXACT))


# ---- the original ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def original(reasoner):
    pytest.importorskip("torch")
    with closing(open_reference("hf", reasoner("fp32"), stream=False)) as model:
        yield model


def test_the_original_draws_the_samples_of_its_fp32_bundle(original, prompts, drawn) -> None:
    """Coupled noise: the same tokens, but for the rounding of two implementations."""
    bundle = {one.key: one for one in drawn}
    own = {one.key: one for one in original.draw(prompts, 3, EXACT, done={(prompts[0].id, 1)})}
    assert own.keys() == {key for key in bundle if key[1] < 3} - {(prompts[0].id, 1)}
    same = sum(one == bundle[key] for key, one in own.items())
    assert same >= len(own) - 1


def test_the_original_scores_as_its_fp32_bundle(original, sampled, prompts, drawn) -> None:
    sequences = [one.token_ids for one in drawn if one.key[0] == prompts[1].id]
    for found in compare_on(original, sampled("fp32"), prompts[1], sequences):
        assert found.kl.max() < 1e-7
        assert found.top_agrees.mean() > 0.99
    further = compare_on(original, sampled("int4-b32"), prompts[1], sequences)
    assert np.concatenate([one.kl for one in further]).max() > 1e-5


def test_an_original_larger_than_memory_is_scored_layer_by_layer(original, reasoner, prompts, drawn) -> None:
    sequences = [one.token_ids for one in drawn[:3]]
    with closing(open_reference("hf", reasoner("fp32"), stream=True)) as streamed:
        layers = cast(Any, streamed)._model.base_model.layers
        assert {p.device.type for layer in layers for p in layer.parameters()} == {"meta"}
        for found in compare_on(original, streamed, prompts[0], sequences):
            assert found.kl.max() == 0
        assert {p.device.type for layer in layers for p in layer.parameters()} == {"meta"}
        assert not streamed.can_draw
        with pytest.raises(VerifyError, match="does not fit the memory"):
            next(streamed.draw(prompts, 1, EXACT))


def test_the_original_and_its_bundle_share_the_tokenizer(original, sampled) -> None:
    assert original.identity.tokenizer_sha256 == sampled("fp32").identity.tokenizer_sha256
    assert original.identity.vocab_size == sampled("fp32").identity.vocab_size


# ---- what a reference names ------------------------------------------------------------------------------------------


def test_a_bundle_or_a_baseline_or_nothing(reasoner, tmp_path, sampled, suite, prompts, drawn) -> None:
    with closing(open_reference(reasoner("fp32"), reasoner("int4-b32"))) as model:
        assert isinstance(model, BundleModel)
    file = tmp_path / "x.baseline"
    Baseline.create(sampled("fp32"), suite, prompts, EXACT, drawn, scored_samples=1).save(file)
    assert isinstance(open_reference(file, reasoner("int4-b32")), BaselineModel)
    with pytest.raises(VerifyError, match="was not found; expected a bundle, a baseline, hf"):
        open_reference(tmp_path / "nothing", reasoner("int4-b32"))
    with pytest.raises(VerifyError, match=r"without a manifest.json.*hf:"):
        open_reference(tmp_path, reasoner("int4-b32"))


def test_where_the_original_lies_is_not_guessed(sampled) -> None:
    bundle = sampled("fp32").model.bundle
    assert original_name(bundle) == "tiny-reasoner"
    for source, message in (
        ({"kind": "directory", "name": "my-model"}, "hf:PATH-OF-my-model"),
        ({"kind": "hub", "name": "a/b", "adapter": {"name": "x"}}, "with an adapter"),
    ):
        other = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, source=source))
        with pytest.raises(VerifyError, match=message):
            original_name(other)


def test_the_identity_of_a_bundle_is_that_of_its_weights(sampled) -> None:
    fp32, int4 = sampled("fp32").identity, sampled("int4-b32").identity
    assert fp32.sha256 != int4.sha256
    assert fp32.sha256 == sampled("fp32").identity.sha256


# ---- baselines -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def baseline(sampled, suite, prompts, drawn, tmp_path_factory):
    made = Baseline.create(sampled("fp32"), suite, prompts, EXACT, drawn, top_k=12, scored_samples=2)
    path = tmp_path_factory.mktemp("baseline") / "arithmetic.baseline"
    return made.save(path), path


def test_a_baseline_comes_back_as_it_was(baseline, drawn, prompts) -> None:
    made, path = baseline
    found = Baseline.load(path)
    assert found.drawn == made.drawn == {one.key: one for one in drawn}
    assert (found.settings, found.identity, found.sha256) == (made.settings, made.identity, made.sha256)
    assert found.samples == 4
    assert found.tops.keys() == {(p.id, i) for p in prompts for i in (0, 1)}
    for key, top in found.tops.items():
        np.testing.assert_array_equal(top.ids, made.tops[key].ids)
        assert top.ids.shape == (len(found.drawn[key].token_ids), 12)
    assert found.summary()["prompts"] == 3


def test_a_baseline_stands_in_for_its_model(baseline, sampled, prompts, drawn) -> None:
    model = BaselineModel(Baseline.load(baseline[1]))
    assert sorted(one.key for one in model.draw(prompts, 4, EXACT)) == sorted(one.key for one in drawn)
    sequences = [next(d for d in drawn if d.key == (prompts[2].id, i)).token_ids for i in (1, 0)]
    quantized = sampled("int4-b32")
    bounds = compare_on(model, quantized, prompts[2], sequences)
    full = compare_on(sampled("fp32"), quantized, prompts[2], sequences)
    for bound, whole in zip(bounds, full, strict=True):
        assert (bound.kl <= whole.kl + 1e-6).all()
        np.testing.assert_allclose(bound.kl.mean(), whole.kl.mean(), rtol=0.2, atol=1e-4)
        np.testing.assert_array_equal(bound.top_agrees, whole.top_agrees)


def test_a_baseline_knows_its_own_samples_only(baseline, sampled, prompts, drawn) -> None:
    model = BaselineModel(baseline[0])
    with pytest.raises(VerifyError, match="stores no distributions"):
        compare_on(model, sampled("int4-b32"), prompts[0], [(1, 2, 3)])
    with pytest.raises(VerifyError, match="cannot score"):
        compare_on(sampled("int4-b32"), model, prompts[0], [drawn[0].token_ids])
    with pytest.raises(VerifyError, match="no sample 4"):
        list(model.draw(prompts, 5, EXACT))
    with pytest.raises(VerifyError, match="seed 7, this run has 8"):
        list(model.draw(prompts, 4, EXACT.replace(seed=8)))


@pytest.mark.parametrize("where", [0.02, 0.3, 0.6, 0.99])
def test_a_tampered_baseline_is_refused(baseline, tmp_path, where) -> None:
    data = bytearray(baseline[1].read_bytes())
    data[int(len(data) * where)] ^= 1
    path = tmp_path / "x.baseline"
    path.write_bytes(data)
    with pytest.raises(VerifyError, match=r"was altered|not an edgedistill baseline"):
        Baseline.load(path)


def test_a_cut_baseline_and_other_files_are_refused(baseline, tmp_path) -> None:
    path = tmp_path / "x.baseline"
    for data in (baseline[1].read_bytes()[:-10], baseline[1].read_bytes()[:30], b"", b"hello\n"):
        path.write_bytes(data)
        with pytest.raises(VerifyError, match=r"was altered|not an edgedistill baseline"):
            Baseline.load(path)
    with pytest.raises(VerifyError, match="cannot be read"):
        Baseline.load(tmp_path / "missing")


def test_a_baseline_that_was_rewritten_with_its_hash_is_one_line(baseline, tmp_path) -> None:
    whole = baseline[1].read_bytes()
    start = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    for body in (b"", b"PK", whole[start:-40], whole[start : start + 900] + b"\0" * 400 + whole[start + 1300 :]):
        forged = tmp_path / "forged.baseline"
        forged.write_bytes(b"edgedistill-baseline\n" + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        with pytest.raises(VerifyError, match="malformed"):
            Baseline.load(forged)


def test_a_baseline_of_other_versions_is_used_and_it_is_said(baseline) -> None:
    assert other_versions(baseline[0]) == []
    older = dataclasses.replace(baseline[0], versions={**baseline[0].versions, "numpy": "0.1", "torch": "9"})
    (note,) = other_versions(older)
    assert note.startswith("The baseline was drawn with numpy 0.1, this run has ")


def test_a_baseline_for_something_else_is_refused(baseline, suite) -> None:
    made, _ = baseline
    made.check(suite=suite, settings=EXACT, tokenizer_sha256=made.identity.tokenizer_sha256, samples=4)
    with pytest.raises(VerifyError, match="made for the suite `arithmetic`"):
        made.check(suite=load_suite("open-ended"))
    with pytest.raises(VerifyError, match=r"temperature 0\.6, this run has 0\.7"):
        made.check(settings=EXACT.replace(temperature=0.7))
    with pytest.raises(VerifyError, match="tokenizer"):
        made.check(tokenizer_sha256="0" * 64)
    with pytest.raises(VerifyError, match="holds 4 samples per prompt; this run needs 9"):
        made.check(samples=9)


def test_a_baseline_is_not_replaced_unasked(baseline) -> None:
    made, path = baseline
    with pytest.raises(OutputError, match="already exists"):
        made.save(path)
    assert made.save(path, force=True).sha256 == Baseline.load(path).sha256


def test_a_baseline_needs_all_its_prompts(sampled, suite, prompts, drawn, baseline) -> None:
    with pytest.raises(VerifyError, match="samples of 2 prompts; expected all 3"):
        Baseline.create(sampled("fp32"), suite, prompts, EXACT, [d for d in drawn if d.key[0] != prompts[0].id])
    with pytest.raises(VerifyError, match="cannot be made from a baseline"):
        Baseline.create(BaselineModel(baseline[0]), suite, prompts, EXACT, drawn)
