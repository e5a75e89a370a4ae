"""A bundle that misreads the reference's reasoning fails before a long reply is drawn; an equal one is not stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundle_files import copy_bundle

from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.verify.models.bundle import BundleModel, open_sampled
from edgedistill.verify.options import VerifyOptions
from edgedistill.verify.run import verify_models
from edgedistill.verify.screening import is_worth_it
from edgedistill.verify.suites.registry import load_suite

SUITE = load_suite("arithmetic")
OPTIONS = VerifyOptions(preset="fast", prompts=10, samples=4, max_new_tokens=150, screen=True)


def test_answers_that_go_on_are_those_of_whole_replies(sampled: Callable[..., BundleModel]) -> None:
    """The same weights under the same noise write the same answer to the same reasoning."""
    model = sampled()
    settings = DrawSettings(temperature=0.6, top_k=20, max_new_tokens=150, numerics="exact")
    prompts = SUITE.prompts[:3]
    whole = {one.key: one for one in model.draw(prompts, 2, settings)}
    begun = {}
    for key, one in whole.items():
        end = model.replies.reasoning_end(one.token_ids, model.replies.encode(SUITE.prompts[0], None))
        if end is not None:
            begun[key] = one.token_ids[:end]
    assert len(begun) > 3
    again = {one.key: one for one in model.answer(prompts, begun, settings)}
    assert set(again) == set(begun)
    for key, one in again.items():
        assert one.token_ids[: len(begun[key])] == begun[key]
        assert one.token_ids == whole[key].token_ids
        assert one.sample == whole[key].sample


def test_reasoning_ends_where_its_tag_closes(sampled: Callable[..., BundleModel]) -> None:
    model = sampled()
    encoded = model.replies.encode(SUITE.prompts[0], None)
    ids = {text: model.model.tokenizer.token_to_id(text) for text in ("<think>", "</think>")}
    opened, closed = ids["<think>"], ids["</think>"]
    assert model.replies.reasoning_end((opened, 5, closed, 6), encoded) == 3
    assert model.replies.reasoning_end((opened, 5, closed, 6, opened, 7, closed, 8), encoded) == 3, "text by then"
    assert model.replies.reasoning_end((opened, 5, 6), encoded) is None
    assert model.replies.reasoning_end((5, 6), encoded) is None
    assert model.replies.reasoning_end((opened, 5), replace(encoded, opened=None)) is None


def test_a_bundle_that_misreads_reasoning_fails_at_once(
    reasoner: Callable[[str], Path],
    sampled: Callable[..., BundleModel],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hot = json.loads((reasoner("int4-b32") / "generation.json").read_text())
    hot |= {"temperature": 8.0, "top_k": 0, "top_p": 1.0}
    bundle = copy_bundle(reasoner("int4-b32"), tmp_path / "hot", generation_json=json.dumps(hot).encode())
    drawn: list[str] = []
    draw = BundleModel.draw

    def counted(self: BundleModel, prompts: Any, samples: int, *args: Any, **more: Any) -> Any:
        drawn.extend([self.identity.name] * samples * len(prompts))
        return draw(self, prompts, samples, *args, **more)

    monkeypatch.setattr(BundleModel, "draw", counted)
    with open_sampled(bundle, threads=1) as damaged:
        report = verify_models(damaged, sampled(), SUITE, OPTIONS)
    assert report.gate is not None
    assert report.gate.result.outcome == "fail"
    assert any("Stopped by the screening" in note for note in report.notes)
    assert report.settings.samples == 4
    assert report.tokens.forced is not None, "where the divergence lies is worth knowing"
    assert report.tokens.survival is None
    assert drawn.count("hot") < 40, "the audit of the sampler only"


def test_an_equal_bundle_goes_on(sampled: Callable[..., BundleModel]) -> None:
    model = sampled()
    report = verify_models(model, model, SUITE, OPTIONS)
    assert any("were not shown to differ" in note for note in report.notes)
    assert report.pairs is not None
    assert report.pairs.length_ratio.value == 1.0


def test_it_is_done_where_it_costs_little() -> None:
    assert not is_worth_it(VerifyOptions(preset="fast"), 12)
    assert is_worth_it(VerifyOptions(samples=64), 150)
    assert not is_worth_it(VerifyOptions(samples=64, screen=False), 150)
    assert is_worth_it(VerifyOptions(samples=4, screen=True), 10)
