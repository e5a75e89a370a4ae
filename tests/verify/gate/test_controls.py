"""Models whose fault is known, sampled by the engine: each has to get the word it deserves."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engine_support import SETTINGS
from exporting import export

from edgedistill.runtime.model import open_bundle
from edgedistill.verify.gate.decide import ALPHA, decide
from edgedistill.verify.gate.endpoints import Margins, endpoints
from edgedistill.verify.metrics.paired import compare
from edgedistill.verify.metrics.suite_summary import summarise_suite
from edgedistill.verify.models.bundle import BundleModel
from edgedistill.verify.sampling.store import collect
from edgedistill.verify.stats.answer_counts import by_prompt
from edgedistill.verify.stats.betting import holm
from edgedistill.verify.suites.registry import load_suite

SCRIPT = Path(__file__).parents[3] / "bench" / "twins.py"
DRAW = SETTINGS.replace(max_new_tokens=160)
SAMPLES = 8
REPETITIONS = 100


@pytest.fixture(scope="module")
def twins():
    spec = importlib.util.spec_from_file_location("twins", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def suite():
    whole = load_suite("arithmetic")
    return replace(whole, prompts=whole.prompts[::4][:36], variants=())


@pytest.fixture(scope="module")
def reference(sampled, suite):
    return samples(sampled("fp32", batch=16), suite)


@pytest.fixture(scope="module")
def few(suite):
    """A third of the prompts, enough for faults that no reply is free of."""
    return replace(suite, prompts=suite.prompts[::3])


@pytest.fixture(scope="module")
def few_of_reference(reference, few):
    asked = {prompt.id for prompt in few.prompts}
    return [one for one in reference if one.prompt_id in asked]


def samples(model, suite, seed=DRAW.seed):
    return [one.sample for one in collect(model, suite.prompts, SAMPLES, DRAW.replace(seed=seed))]


def twin(twins, tmp_path, edit):
    source = twins.make_twin(tmp_path / "twin", edit)
    export(source, tmp_path / "bundle", format="fp32", context=256, check=False)
    return BundleModel(open_bundle(tmp_path / "bundle", threads=1), batch=16)


def paired(reference, own):
    return compare(by_prompt(reference), by_prompt(own), limit=DRAW.max_new_tokens)


def shows_harm(comparison, margins, estimand):
    """Whether ``decide`` fails it, without the intervals and forecasts of ``decide``."""
    found = endpoints(comparison, margins, estimand)
    weights = [weight for one in found for weight in one.shares()]
    return any(holm([p for one in found for p in one.beyond()], ALPHA, weights)[0])


def verdicts(suite, reference, own):
    return tuple(summarise_suite(suite, group).verdict for group in (reference, own))


def test_a_collapsed_twin_is_called_so_however_consistent_it_is(twins, tmp_path, few, few_of_reference) -> None:
    with twin(twins, tmp_path, twins.collapsed) as model:
        own = samples(model, few)
    found = summarise_suite(few, own)
    assert found.agreement.value == 1.0
    assert found.entropy.value == pytest.approx(0, abs=1e-9)
    assert {one.answer for one in own} == {"7"}
    assert found.verdict.name == "collapsed"
    gate = decide(paired(few_of_reference, own), Margins(), verdicts=verdicts(few, few_of_reference, own))
    assert gate.outcome == "fail"


def test_a_twin_that_is_confidently_wrong(twins, tmp_path, few) -> None:
    with twin(twins, tmp_path, twins.wrong) as model:
        found = summarise_suite(few, samples(model, few))
    assert found.verdict.name == "consistent-wrong"
    assert found.agreement.value > 0.6
    assert found.accuracy.value < 0.3


def test_swapped_digits_fail_without_gold_too(twins, tmp_path, few, few_of_reference) -> None:
    """Every reply is as sure and as long as before; the answers are others."""

    def swapped(tensors, tokenizer):
        rows = tensors[twins.EMBEDDING]
        three, eight = (tokenizer.token_to_id(digit) for digit in "38")
        rows[[three, eight]] = rows[[eight, three]]

    unknown = replace(few, prompts=tuple(replace(prompt, answer=None) for prompt in few.prompts))
    with twin(twins, tmp_path, swapped) as model:
        own = [replace(one, correct=None) for one in samples(model, few)]
    theirs = [replace(one, correct=None) for one in few_of_reference]
    gate = decide(paired(theirs, own), Margins(), verdicts=verdicts(unknown, theirs, own))
    distance = next(row for row in gate.endpoints if row.name == "distance")
    assert (gate.outcome, distance.outcome) == ("fail", "fail")
    assert distance.change.value > 0.5
    assert gate.endpoints[0].name == "distance"


@pytest.mark.parametrize("name", ["int2-b32-rtn", "int3-b32-sym-rtn"])
def test_few_bits_rounded_to_nearest_fail(sampled, suite, reference, name) -> None:
    """Three bits lose some ten points of accuracy that way, and some three as they are exported."""
    own = samples(sampled(name, batch=16), suite)
    gate = decide(paired(reference, own), Margins(), verdicts=verdicts(suite, reference, own))
    assert gate.outcome == "fail"
    accuracy = gate.endpoints[0]
    assert (accuracy.name, accuracy.outcome, accuracy.direction) == ("accuracy", "fail", "worse")
    assert accuracy.change.interval is not None
    assert accuracy.change.interval.high < -Margins().accuracy, "the interval lies beyond the margin"


def test_the_reference_against_itself_does_not_fail(sampled, suite, reference) -> None:
    again = samples(sampled("fp32", batch=16), suite, seed=DRAW.seed + 1)
    assert again != reference
    gate = decide(paired(reference, again), Margins(), verdicts=verdicts(suite, reference, again))
    assert gate.outcome != "fail"
    # Both sides drawn from the same real samples: the hypothesis of no change is exactly true in every repetition.
    rng, fails = np.random.default_rng(0), 0
    pool = {prompt: (*group, *by_prompt(again)[prompt]) for prompt, group in by_prompt(reference).items()}
    for _ in range(REPETITIONS):
        theirs, ours = (
            {
                prompt: [replace(group[pick], index=i) for i, pick in enumerate(rng.integers(len(group), size=SAMPLES))]
                for prompt, group in pool.items()
            }
            for _ in range(2)
        )
        comparison = compare(theirs, ours, limit=DRAW.max_new_tokens)
        fails += any(shows_harm(comparison, Margins(), estimand) for estimand in ("suite", "population"))
    assert fails <= 0.05 * REPETITIONS
