"""Before anything is sampled: could a bundle that did not change pass at all?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from simulated import draw, sample

from edgedistill.verify.gate import reach
from edgedistill.verify.gate.decide import decide
from edgedistill.verify.gate.endpoints import Estimand, Margins, endpoints
from edgedistill.verify.gate.reach import fewest_prompts, out_of_reach, unchanged
from edgedistill.verify.metrics.paired import compare
from edgedistill.verify.options import VerifyOptions
from edgedistill.verify.pilot import draw_pilot
from edgedistill.verify.population import usual_length, wanted_prompts, with_enough
from edgedistill.verify.suites.registry import enlarged, load_suite
from edgedistill.verify.types import Drawn, Message, Prompt


@pytest.mark.parametrize(("estimand", "sequential"), [("suite", False), ("population", False), ("population", True)])
def test_with_so_many_prompts_no_change_passes_and_with_one_fewer_it_does_not(
    estimand: Estimand, *, sequential: bool
) -> None:
    name, needed = fewest_prompts(Margins(), 4, estimand=estimand, alpha=0.05, gold=True, sequential=sequential)
    found = [
        decide(unchanged(prompts, 4, gold=True, length=1.0), Margins(), estimand=estimand, sequential=sequential)
        for prompts in (needed, needed - 1)
    ]
    assert [one.outcome for one in found] == ["pass", "inconclusive"]
    assert next(row.outcome for row in found[1].endpoints if row.name == name) == "inconclusive"


def test_prompts_like_these_take_more_than_the_rule_of_three() -> None:
    few = fewest_prompts(Margins(), 16, estimand="suite", alpha=0.05, gold=True)[1]
    many = fewest_prompts(Margins(), 16, estimand="population", alpha=0.05, gold=True)[1]
    assert few < 40
    assert 3 / 0.02 < many < 300
    wide = Margins(accuracy=0.1, truncation=0.1, distance=0.2, agreement=0.1)
    assert fewest_prompts(wide, 16, estimand="population", alpha=0.05, gold=True)[1] < many


def test_a_design_that_nothing_can_pass_is_told() -> None:
    told = out_of_reach(40, Margins(), 16, estimand="population", alpha=0.05, gold=True)
    assert "with 40 prompts" in told
    assert "--estimand suite" in told
    assert not out_of_reach(40, Margins(), 16, estimand="suite", alpha=0.05, gold=True)
    assert "more samples help" in out_of_reach(3, Margins(), 2, estimand="suite", alpha=0.05, gold=False)


@pytest.mark.parametrize("estimand", ["suite", "population"])
@pytest.mark.parametrize("gold", [False, True])
def test_what_is_assumed_is_a_model_compared_with_itself(estimand: Estimand, *, gold: bool) -> None:
    drawn = draw([{"g": 1.0}] * 9, 6, np.random.default_rng(0), gold=["g"] * 9 if gold else None)
    pairs = zip(
        endpoints(unchanged(9, 6, gold=gold, length=0.25), Margins(), estimand),
        endpoints(compare(drawn, drawn, limit=400), Margins(), estimand),
        strict=True,
    )
    for assumed, found in pairs:
        assert (assumed.name, assumed.bets.count) == (found.name, found.bets.count)
        assert assumed.bets.estimate == pytest.approx(found.bets.estimate)
        assert assumed.within() == pytest.approx(found.within(), rel=0.2 if found.name == "tokens" else 1e-9)


def test_beyond_a_million_prompts_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "MOST", 128)
    for estimand, most in (("suite", False), ("population", True)):
        needed = fewest_prompts(Margins(), 16, estimand=estimand, alpha=0.05, gold=True)[1]  # type: ignore[arg-type]
        assert (needed == 129) is most
        told = out_of_reach(4, Margins(), 16, estimand=estimand, alpha=0.05, gold=True)  # type: ignore[arg-type]
        assert (" takes more than 128 at its margin" in told) is most
        assert "with 4 prompts: the endpoint" in told


def test_replies_much_shorter_than_their_limit_take_more_prompts() -> None:
    counts = [
        fewest_prompts(Margins(), 16, estimand="population", alpha=0.05, gold=True, length=length)
        for length in (1.0, 0.25, 0.05)
    ]
    assert counts[0] == counts[1]
    assert counts[2][0] == "tokens"
    assert counts[2][1] > 600
    assert usual_length((100, 50), 1500) == pytest.approx(0.05)
    assert usual_length((0, 0), 4000) == 1 / 4000, "an empty reply takes a token all the same"
    assert usual_length((3000,), 1500) == 1.0


def test_a_verdict_about_prompts_like_these_gets_prompts_enough() -> None:
    suite = load_suite("arithmetic")
    options = VerifyOptions(estimand="population")
    found = with_enough(suite, suite.prompts, Margins(), options)
    assert found is not None
    assert 213 < len(found.suite.prompts) < 320
    assert found.suite == load_suite(found.suite.name)
    assert {prompt.id: prompt for prompt in suite.prompts}.items() <= {p.id: p for p in found.suite.prompts}.items()
    assert f"`{found.suite.name}` with {len(found.suite.prompts)} prompts" in found.sentence
    assert not out_of_reach(len(found.suite.prompts), Margins(), 32, estimand="population", alpha=0.05, gold=True)
    short = with_enough(suite, suite.prompts, Margins(), options, length=0.05)
    assert short is not None
    assert 700 < len(short.suite.prompts) < 900


def test_the_number_of_prompts_stays_where_it_was_asked_for_or_is_of_no_use() -> None:
    suite = load_suite("arithmetic")
    assert with_enough(suite, suite.prompts, Margins(), VerifyOptions()) is None
    assert with_enough(suite, suite.prompts, Margins(), VerifyOptions(estimand="population", prompts=150)) is None
    instructions = load_suite("instructions")
    population = VerifyOptions(estimand="population")
    assert with_enough(instructions, instructions.prompts, Margins(), population) is None
    assert enlarged(instructions, 500) is None
    enough = load_suite("arithmetic-seed3x100")
    assert with_enough(enough, enough.prompts, Margins(), population) is None
    fewer, more = (wanted_prompts(Margins(), VerifyOptions(samples=n), gold=True) for n in (64, 8))
    assert 213 < fewer < more < 400


_SUITES = {  # answers of a model, right answers, usual tokens
    "unanimous": ([{"g": 1.0}], True, 600.0),
    "short yes and no without gold": ([{"yes": 1.0}, {"no": 1.0}], False, 60.0),
    "one prompt of all lost": ([{"g": 1.0}] * 59 + [{"w": 1.0}], True, 300.0),
    "right half of the time": ([{"g": 0.5, "w": 0.5}], True, 300.0),
}


@pytest.mark.parametrize("estimand", ["suite", "population"])
@pytest.mark.parametrize("case", _SUITES)
@pytest.mark.parametrize("samples", [4, 16])
def test_an_identical_bundle_passes_exactly_where_nothing_was_said_against_it(
    case: str, samples: int, estimand: Estimand
) -> None:
    answers, gold, tokens = _SUITES[case]
    outcomes = set()
    model = [answers[i % len(answers)] for i in range(300)]
    every = list(
        draw(model, samples, np.random.default_rng(0), gold=["g"] * 300 if gold else None, tokens=tokens).items()
    )
    for prompts in (10, 60, 300):
        drawn = dict(every[:prompts])
        length = usual_length([one.tokens for group in drawn.values() for one in group], 2048)
        told = out_of_reach(prompts, Margins(), samples, estimand=estimand, alpha=0.05, gold=gold, length=length)
        found = decide(compare(drawn, drawn, limit=2048), Margins(), estimand=estimand)
        assert (found.outcome == "pass") is (not told), (prompts, told)
        outcomes.add(found.outcome)
    if (estimand, case) != ("population", "short yes and no without gold"):
        assert outcomes == {"pass", "inconclusive"}


def test_replies_of_a_server_have_a_length_without_token_ids() -> None:
    """Taken for empty, they had 60 prompts told that the endpoint `tokens` takes 2097, before these passed."""

    def drawn(_: object, prompts: list[Prompt], samples: int, *, reference: bool) -> list[Drawn]:
        return [Drawn(sample(p.id, i, "yes", tokens=64), (), "stop") for p in prompts for i in range(samples)]

    prompts = [Prompt(f"p{i}", (Message("user", "Yes?"),)) for i in range(60)]
    run = cast("Any", SimpleNamespace(draw_anew=drawn, clock=lambda: 0.0))
    model = cast("Any", SimpleNamespace(can_score=False, identity=None))
    pilot = draw_pilot(run, model, model, prompts)
    assert (set(pilot.lengths), pilot.longest) == ({64}, 64)
    length = usual_length(pilot.lengths, 512)
    assert not out_of_reach(60, Margins(), 16, estimand="suite", alpha=0.05, gold=False, length=length)
    told = out_of_reach(60, Margins(), 16, estimand="suite", alpha=0.05, gold=False, length=64 / 8192)
    assert "if replies are as long as the pilot's (0.78 % of their limit)" in told
    assert "--max-new-tokens" in told


def test_a_design_that_is_looked_at_on_the_way_takes_more() -> None:
    wide = Margins(accuracy=0.2, agreement=0.2, entropy_bits=0.5, length_ratio=1.5, truncation=0.2, distance=0.4)
    fewest = {
        sequential: fewest_prompts(wide, 8, estimand="population", alpha=0.05, gold=True, sequential=sequential)[1]
        for sequential in (False, True)
    }
    assert fewest[False] < fewest[True]
    for sequential in (False, True):
        told = out_of_reach(fewest[False], wide, 8, estimand="population", alpha=0.05, gold=True, sequential=sequential)
        assert bool(told) is sequential
    assert not out_of_reach(fewest[False], wide, 8, estimand="population", alpha=0.05, gold=True)
    assert f"takes {fewest[True]} at its margin" in told
