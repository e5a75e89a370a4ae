"""Procedures scored like models: answers, their trials, M@K to D@K, cost, stored answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.errors import UsageError, VerifyError
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.trajectories import solve
from edgedistill.trajectories.result import Trajectory
from edgedistill.verify import run_procedures as procedure_runner
from edgedistill.verify.metrics.procedure_score import procedure_change, procedure_score
from edgedistill.verify.models.procedure import ProcedureModel, stopped_tokens
from edgedistill.verify.options import VerifyOptions
from edgedistill.verify.report.model import VerifyReport
from edgedistill.verify.report.tables import metric_rows
from edgedistill.verify.run_procedures import verify_procedure
from edgedistill.verify.stages import Run
from edgedistill.verify.suites.registry import load_suite
from edgedistill.verify.types import Drawn, Procedure, Sample, Trial

SETTINGS = DrawSettings(temperature=0.9, top_k=20, top_p=0.95, max_new_tokens=90, seed=7, numerics="exact")
OPTIONS = VerifyOptions(prompts=3, samples=2, seed=7, max_new_tokens=90)


def drawn(prompt_id, index, trial, correct=True):
    return Drawn(Sample(prompt_id, index, "parsed", "4", "4", 10, 0, False, 0.0, correct), (1,), "stop", trial)


def trial(correct, vote, *, tokens=100, passed=0):
    return Trial(tuple(correct), vote, len(correct), False, "majority", tokens, passed, tokens - 10, 0.5)


def test_a_vote_has_the_trajectories_of_the_single_procedure(sampled, prompts) -> None:
    model = sampled()
    single = list(ProcedureModel(model, Procedure("single")).draw(prompts, 4, SETTINGS))
    voted = list(ProcedureModel(model, Procedure("vote", 2)).draw(prompts, 2, SETTINGS))
    engine = {one.key: one.token_ids for one in model.draw(prompts, 4, SETTINGS)}
    assert {one.key: one.token_ids for one in single} == engine
    for answer in voted:
        behind = [one for one in single if one.key[0] == answer.key[0] and one.key[1] // 2 == answer.key[1]]
        assert answer.trial.correct == tuple(one.sample.correct for one in behind)
        assert answer.trial.trajectory_tokens == sum(one.sample.tokens for one in behind) == answer.sample.tokens
        assert answer.sample.answer in {one.sample.answer for one in behind}
        assert answer.trial.vote == answer.sample.correct
        assert answer.trial.seconds > 0
        stored = answer.to_dict()
        assert Drawn.from_dict(stored) == answer
        stored["trial"]["joules"] = None  # as earlier versions wrote it
        assert Drawn.from_dict(stored) == answer


def test_checks_are_not_known_to_the_vote(sampled) -> None:
    prompt = next(p for p in load_suite("instructions").prompts if p.checks)
    (answer,) = ProcedureModel(sampled(), Procedure("vote", 2)).draw([prompt], 1, SETTINGS)
    assert answer.trial.decided_by in ("universal", "similarity", "none")
    assert answer.sample.answer in ("follows", "violates", None)
    assert answer.trial.answered <= 2


def test_the_scores_are_means_over_prompts() -> None:
    answers = [
        drawn("a", 0, trial([True, True, False], True)),
        drawn("a", 1, trial([True, False, False], False), correct=True),
        drawn("b", 0, trial([False, False, False], False, passed=20), correct=False),
        drawn("b", 1, trial([True, False, False], False), correct=True),
    ]
    score = procedure_score(answers, "deliberate", level=0.95, seed=0)
    assert score.mean_at_k.value == pytest.approx((3 / 6 + 1 / 6) / 2)
    assert score.pass_at_k.value == pytest.approx((1 + 0.5) / 2)
    assert score.vote_at_k.value == pytest.approx((0.5 + 0) / 2)
    assert score.deliberate_at_k.value == pytest.approx((1 + 0.5) / 2)
    assert (score.tokens.value, score.pass_tokens.value, score.stopped_tokens.value) == (105, 5, 95)
    assert score.decided_by == {"majority": 4}
    assert procedure_score(answers, "vote", level=0.95, seed=0).deliberate_at_k is None
    single = procedure_score(answers, "single", level=0.95, seed=0)
    assert (single.pass_at_k, single.vote_at_k) == (None, None)
    assert single.mean_at_k is not None


def test_the_change_of_a_procedure_is_paired_by_prompt() -> None:
    before = [drawn(p, 0, trial([True, True], True)) for p in "abcd"]
    after = [
        drawn("d", 0, trial([True, True], True)),
        drawn("a", 0, trial([True, False], True, tokens=140), correct=False),
        drawn("b", 0, trial([False, False], False), correct=False),
        drawn("c", 0, trial([True, True], True)),
    ]
    change = procedure_change(after, before, "deliberate", level=0.95, seed=0)
    found = (change.mean_at_k, change.pass_at_k, change.vote_at_k, change.deliberate_at_k, change.tokens)
    assert [one.value for one in found] == pytest.approx([-1.5 / 4, -1 / 4, -1 / 4, -2 / 4, 40 / 4])
    assert change.vote_at_k.interval.low < -1 / 4 < change.vote_at_k.interval.high
    single = procedure_change(after, before, "single", level=0.95, seed=0)
    assert (single.pass_at_k, single.vote_at_k, single.deliberate_at_k) == (None, None, None)
    assert procedure_change(before, before, "vote", level=0.95, seed=0).vote_at_k.value == 0
    with pytest.raises(ValueError, match="different prompts"):
        procedure_change(after[:3], before, "vote", level=0.95, seed=0)


@given(st.lists(st.tuples(st.integers(1, 50), st.sampled_from(["1", "2", None])), min_size=1, max_size=10))
def test_early_stop_never_costs_more(entries) -> None:
    made = [
        Trajectory(i, "answered" if a else "unparsed", a, "", "", "x", (1,) * n, 0, "stop")
        for i, (n, a) in enumerate(entries)
    ]
    assert 0 < stopped_tokens(made) <= sum(n for n, _ in entries)


def test_the_predicted_saving_is_the_real_one(sampled, prompts) -> None:
    model = sampled().model
    options = Procedure("vote", 6).options
    question = [{"role": "user", "content": prompts[2].messages[0].content}]
    full = solve(model, question, options=options, settings=SETTINGS.generation, numerics="exact")
    stopped = solve(
        model, question, options=replace(options, early_stop="exact"), settings=SETTINGS.generation, numerics="exact"
    )
    # The rest is looked at after every step, in which all trajectories of one length end together.
    assert stopped.stats.trajectory_tokens == stopped_tokens(full.trajectories)
    assert stopped.final == full.final


def test_a_procedure_is_gated_against_the_same_one_and_resumed(reasoner, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(Run, "audit_sampler", lambda *_, **__: None)  # has its own tests, and takes its time
    bundle, reference = reasoner("int4-b32"), reasoner("fp32")
    report = verify_procedure(bundle, Procedure("vote", 2), reference=reference, options=OPTIONS, store=tmp_path)
    assert report.procedure.trajectories == 2
    assert report.gate is not None
    assert report.procedure.reference is not None
    assert report.bundle_result.accuracy.value == pytest.approx(report.procedure.bundle.vote_at_k.value)
    lost = report.procedure.bundle.vote_at_k.value - report.procedure.reference.vote_at_k.value
    assert report.procedure.change.vote_at_k.value == pytest.approx(lost)
    texts = {row.label: row.bundle for row in metric_rows(report)}
    assert texts["change of V@2"].startswith(f"{100 * lost:+.1f}")
    assert texts["change of V@2"].endswith(" points")
    assert report.tokens.forced is None
    assert VerifyReport.from_dict(report.to_dict()).to_dict() == report.to_dict()
    again = verify_procedure(bundle, Procedure("vote", 2), reference=reference, options=OPTIONS, store=tmp_path)
    assert again.procedure.bundle == report.procedure.bundle  # seconds included: nothing was drawn again
    assert len(list(tmp_path.iterdir())) == 2
    alone = verify_procedure(bundle, Procedure("single"), options=OPTIONS, store=tmp_path)
    assert (alone.kind, alone.gate, alone.procedure.reference, alone.procedure.change) == ("audit", None, None, None)
    assert alone.procedure.bundle.vote_at_k is None


def test_a_procedure_is_judged_on_the_same_basis_as_single_replies(reasoner, sampled, monkeypatch) -> None:
    """A question under several ids counts once about prompts like these; another original is refused."""
    monkeypatch.setattr(Run, "audit_sampler", lambda *_, **__: None)
    suite = load_suite("arithmetic")
    asked = suite.prompts[:2]
    copies = tuple(replace(prompt, id=f"{prompt.id}-again") for prompt in asked)
    twice = replace(suite, prompts=(*asked, *copies), variants=())
    options = replace(OPTIONS, prompts=None, estimand="population")
    models = {"bundle": reasoner("int4-b32"), "reference": reasoner("fp32")}
    report = verify_procedure(procedure=Procedure("single"), suite=twice, options=options, **models)
    assert report.suite.prompts == 2
    assert any(note.startswith("2 of 4 prompts ask what another one asks") for note in report.notes)
    assert report.gate is not None
    other = sampled("fp32")
    elsewhere = replace(other.identity, details={**other.identity.details, "source": "another-model"})
    monkeypatch.setattr(other, "identity", elsewhere)
    monkeypatch.setattr(other, "close", lambda: None)
    monkeypatch.setattr(procedure_runner, "open_reference", lambda *_: other)
    with pytest.raises(VerifyError, match="expected the same original"):
        verify_procedure(procedure=Procedure("single"), suite=twice, options=options, **models)


@pytest.mark.parametrize(
    ("procedure", "answers"), [(Procedure("single"), 16), (Procedure("vote", 4), 4), (Procedure("deliberate", 16), 2)]
)
def test_fewer_answers_for_more_trajectories(reasoner, monkeypatch, procedure, answers) -> None:
    monkeypatch.setattr(procedure_runner, "_run", lambda *arguments: arguments[3].n_samples)
    assert verify_procedure(reasoner("int4-b32"), procedure, options=VerifyOptions(preset="fast")) == answers


@pytest.mark.parametrize(
    ("procedure", "options"),
    [
        (lambda: Procedure("vote", 1), {}),
        (lambda: Procedure("vote", 65), {}),
        (lambda: Procedure("loud", 8), {}),  # type: ignore[arg-type]
        (lambda: Procedure("vote", 2), {"sequential": True}),
        (lambda: Procedure("vote", 2), {"temperature": 0.0}),
    ],
)
def test_what_makes_no_sense_is_refused(reasoner, procedure, options) -> None:
    with pytest.raises(UsageError):
        verify_procedure(reasoner("int4-b32"), procedure(), options=replace(OPTIONS, **options))
