"""Before anything is sampled: could a bundle that did not change pass at all?"""

from __future__ import annotations

import pytest

from edgedistill.verify.gate.decide import decide
from edgedistill.verify.gate.endpoints import Estimand, Margins
from edgedistill.verify.gate.reach import fewest_prompts, out_of_reach, unchanged


@pytest.mark.parametrize(("estimand", "sequential"), [("suite", False), ("population", False), ("population", True)])
def test_with_so_many_prompts_no_change_passes_and_with_one_fewer_it_does_not(
    estimand: Estimand, *, sequential: bool
) -> None:
    name, needed = fewest_prompts(Margins(), 4, estimand=estimand, alpha=0.05, gold=True, sequential=sequential)
    found = [
        decide(unchanged(prompts, 4, gold=True), Margins(), estimand=estimand, sequential=sequential)
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
