"""From samples to a verdict: known models get the report that they deserve."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from report_support import LOOSE, PROVENANCE, SETTINGS, divergences, draw, make_report, make_suite, model

from edgedistill.cli.verification import print_summary
from edgedistill.errors import EXIT_FAIL, EXIT_INCONCLUSIVE, EXIT_OK, VerifyError
from edgedistill.verify.gate.endpoints import Margins
from edgedistill.verify.report.build import analyse
from edgedistill.verify.report.ci import job_summary
from edgedistill.verify.report.extras import ModelSamples
from edgedistill.verify.report.html import html
from edgedistill.verify.report.prompt_tables import LOST_TITLE, lost_rows
from edgedistill.verify.types import Suite


def test_an_equal_model_passes_and_says_what_it_could_have_seen() -> None:
    lenient = replace(LOOSE, accuracy=0.5, agreement=0.6)
    equal = make_report(prompts=60, samples=32, margins=lenient)
    assert equal.gate is not None
    assert {row.outcome for row in equal.gate.result.endpoints} == {"pass"}
    assert "60 prompts of 32 samples" in equal.gate.power
    sure = make_report(prompts=60, samples=32, accuracy=0.9, margins=lenient)
    assert sure.exit_code in (EXIT_OK, EXIT_INCONCLUSIVE)


def test_a_comparison_without_a_gate_is_inconclusive_at_best() -> None:
    """An original too large for memory scores only: a bundle that looks sound by itself did not pass anything."""
    report = make_report(audit=True, accuracy=0.95)
    assert report.exit_code == EXIT_OK
    assert replace(report, reference=report.bundle).exit_code == EXIT_INCONCLUSIVE


def test_a_damaged_model_fails_with_its_reasons() -> None:
    report = make_report(accuracy=0.3)
    assert report.exit_code == EXIT_FAIL
    assert report.gate is not None
    assert any(reason.startswith("accuracy: -") and "beyond" in reason for reason in report.gate.reasons)
    assert report.gate.decide == ""
    assert report.pairs is not None
    assert report.pairs.lost is not None
    assert report.pairs.gained is not None
    assert report.pairs.lost.value > 5 * report.pairs.gained.value


def test_the_prompts_that_lost_most_are_in_every_form_of_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    report = make_report(accuracy=0.1, samples=32)
    assert len(report.lost_most) == 10
    worst = report.lost_most[0]
    assert worst.beyond_noise
    assert worst.reference.answer == worst.gold
    assert str(worst.bundle.answer).startswith("100")
    print_summary(report)
    row = next(iter(lost_rows(report)))
    for text in (capsys.readouterr().out, job_summary(report), html(report)):
        assert LOST_TITLE in text
        assert all(cell in text for cell in row)
        assert "of these 10 lost more than sampling alone" in text
    audit = make_report(audit=True, accuracy=0.1)
    print_summary(audit)
    assert not any(LOST_TITLE in text for text in (capsys.readouterr().out, job_summary(audit), html(audit)))


def test_tight_margins_are_undecided_and_say_what_would_decide() -> None:
    report = make_report(margins=Margins())
    assert report.exit_code == EXIT_INCONCLUSIVE
    assert report.gate is not None
    assert "further samples a prompt" in report.gate.decide
    assert report.gate.reasons[0].startswith("The verdict is about these 40 prompts")
    assert any("not decided" in reason for reason in report.gate.reasons)


def test_a_collapsed_model_is_named_although_it_is_perfectly_consistent() -> None:
    report = make_report(audit=True, constant="7")
    assert report.bundle_result.agreement.value == 1.0
    assert report.bundle_result.verdict is not None
    assert report.bundle_result.verdict.name == "collapsed"
    assert report.exit_code == EXIT_FAIL
    against = make_report(constant="7")
    assert against.exit_code == EXIT_FAIL


def test_a_claim_of_100_percent_is_bounded() -> None:
    report = make_report(audit=True, samples=512, prompts=40, accuracy=1.0)
    assert "at least 0.9942" in report.claim
    assert "not 100 %" in report.claim
    assert report.exit_code == EXIT_OK


def test_temperature_zero_is_labelled_and_cannot_pass() -> None:
    suite = make_suite()
    drawn = ModelSamples(model(suite, "m").identity, draw(suite.prompts, 4, accuracy=1.0))
    report = analyse(
        suite, replace(SETTINGS, temperature=0.0, samples=4), drawn, drawn, margins=LOOSE, provenance=PROVENANCE
    )
    assert report.gate is not None
    assert report.gate.result.outcome == "inconclusive"
    assert "deterministic" in report.claim
    assert any("not scored" in reason for reason in report.gate.reasons)
    assert report.bundle_result.verdict is not None
    assert report.bundle_result.verdict.name == "deterministic-decoding"


def test_token_report_takes_what_was_measured() -> None:
    report = make_report()
    tokens = report.tokens
    assert tokens.forced is not None
    assert tokens.on_policy is not None
    assert tokens.path is not None
    assert tokens.path.kl.value == 0.0
    assert tokens.forced.kl.value > 0.01
    assert tokens.by_position[0].start == 0
    assert [b.stop for b in tokens.by_position[:-1]] == [b.start for b in tokens.by_position[1:]]
    weights = [b.stop - b.start for b in tokens.by_position]
    assert sum(weights) == max(b.stop for b in tokens.by_position)
    assert tokens.coupled_pairs == 40 * 16
    assert all(prompt.kl is not None and prompt.kl.value > 0 for prompt in report.prompts)


def test_equal_tokens_never_part() -> None:
    suite = make_suite()
    reference = model(suite, "reference")
    report = analyse(
        suite, SETTINGS, reference, reference, margins=LOOSE, provenance=PROVENANCE,
        divergences=divergences(suite, list(reference.drawn), size=0.0),
    )  # fmt: skip
    assert report.tokens.parted == 0
    assert report.tokens.survival is not None
    assert report.tokens.survival.median is None
    assert report.tokens.forced is not None
    assert report.tokens.forced.kl.value == pytest.approx(0.0, abs=1e-12)
    assert report.pairs is not None
    assert report.pairs.distance.value == pytest.approx(0.0, abs=0.05)


def test_audit_extras_see_the_variants_and_the_sweep() -> None:
    report = make_report(audit=True, accuracy=1.0)
    varied, sweep = report.bundle_extras.perturbations, report.bundle_extras.sweep
    assert varied is not None
    assert varied.paraphrase_keeps.value > 0.7
    assert varied.changed_number_changes.value > 0.9
    assert varied.empty_gives.value < 0.2
    assert sweep is not None
    assert sweep.sound


def test_an_open_ended_suite_has_diversity_and_no_accuracy() -> None:
    suite = make_suite()
    plain = Suite("open", tuple(replace(prompt, answer=None, extract="text") for prompt in suite.prompts))
    report = analyse(plain, SETTINGS, model(plain, "m"), provenance=PROVENANCE)
    assert report.bundle_result.accuracy is None
    assert report.bundle_extras.diversity is not None
    assert report.bundle_extras.diversity.texts == 256


def test_replies_without_any_answer_are_refused() -> None:
    suite = make_suite()
    with pytest.raises(VerifyError, match=r"None of the 640 replies of the bundle has an answer .*--max-new-tokens"):
        analyse(suite, SETTINGS, model(suite, "m", garbage=1.0), provenance=PROVENANCE)
    sound = model(suite, "r")
    # A bundle that lost all its answers is not bad input: it fails.
    report = analyse(suite, SETTINGS, model(suite, "m", garbage=1.0), sound, margins=LOOSE, provenance=PROVENANCE)
    assert report.exit_code == EXIT_FAIL
    assert any("have no answer" in note for note in report.notes)


def test_samples_that_do_not_fit_together_are_refused() -> None:
    suite = make_suite()
    whole, few = model(suite, "a"), model(suite, "b", samples=8)
    with pytest.raises(VerifyError, match="same number"):
        analyse(suite, SETTINGS, few, whole, margins=LOOSE, provenance=PROVENANCE)
    half = replace(whole, drawn=[d for d in whole.drawn if d.sample.prompt_id < "p20"])
    with pytest.raises(VerifyError, match="`p20` has samples but is no prompt"):
        analyse(suite, SETTINGS, half, whole, margins=LOOSE, provenance=PROVENANCE)
    one = make_suite(1)
    with pytest.raises(VerifyError, match="at least 2"):
        analyse(one, SETTINGS, model(one, "a"), model(one, "b"), margins=LOOSE, provenance=PROVENANCE)
    single = model(suite, "c", samples=1)
    with pytest.raises(VerifyError, match="at least 2"):
        analyse(suite, SETTINGS, single, single, margins=LOOSE, provenance=PROVENANCE)


def test_the_report_is_deterministic() -> None:
    assert make_report(prompts=12).to_dict() == make_report(prompts=12).to_dict()


def test_power_curves_fall_from_no_change_to_twice_the_margin() -> None:
    report = make_report()
    assert report.gate is not None
    for curve in report.gate.curves:
        assert np.all(np.diff(curve.power) <= 1e-9)
        assert 0.0 <= curve.power[-1] <= curve.power[0] <= 1.0
