"""Answers to perturbed prompts, and entropies over temperatures, of counts made up for the purpose."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.perturbations import perturbation_check, temperature_sweep
from edgedistill.verify.stats.answer_counts import Tally


def codes(*answers: int) -> np.ndarray:
    return np.array(answers)


def test_perturbations() -> None:
    prompts = [codes(1, 1, 2), codes(3, 3), codes(-1, -1)]
    found = perturbation_check(
        prompts,
        paraphrases=[codes(1, 1), codes(4, 4), codes(5)],
        changed=[codes(7, 7), codes(3), None],
        empty=codes(3, 3, 1),
        changed_gold=[7, 8, None],
    )
    assert found.paraphrase_keeps.value == 0.5
    assert found.changed_number_changes.value == 0.5
    assert found.changed_number_correct.value == 0.5
    assert found.empty_gives.value == pytest.approx(1 / 3)
    assert found.undecided == 1


def test_temperature_sweep() -> None:
    def at(majority: int, seed: int) -> list[Tally]:
        """Of 16 samples about so many say one thing, half of the others another."""
        rng = np.random.default_rng(seed)
        tops = np.clip(majority + rng.integers(-1, 2, size=30), 2, 14)
        return [Tally(np.array([top, (17 - top) // 2, (16 - top) // 2]), 0, 0) for top in tops]

    rising = {t: at(majority, i) for i, (t, majority) in enumerate({0.3: 14, 0.7: 12, 1.0: 10, 1.5: 8}.items())}
    assert temperature_sweep(rising).sound
    assert "rises with the temperature" in temperature_sweep(rising).sentence
    flat = {t: at(10, i) for i, t in enumerate((0.3, 0.7, 1.0, 1.5))}
    assert not temperature_sweep(flat).rises
    assert "No rise" in temperature_sweep(flat).sentence
    broken = {**rising, 1.0: at(14, 2)}
    assert temperature_sweep(broken).falls == ((0.7, 1.0),)
    assert "falls between the temperatures 0.7 and 1;" in temperature_sweep(broken).sentence
    with pytest.raises(VerifyError, match="at least 2"):
        temperature_sweep({1.0: at(10, 0)})
