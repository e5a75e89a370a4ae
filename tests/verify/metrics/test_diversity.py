"""Diversity of texts, on texts whose number of kinds is known."""

from __future__ import annotations

import numpy as np
import pytest

from edgedistill.verify.metrics.diversity import MOST_TEXTS, diversity


def test_diversity_tells_one_text_from_many() -> None:
    same = ["The cat sat on the mat."] * 10
    words = ["alpha", "beta", "gamma", "delta", "zeta", "eta", "theta", "iota", "kappa", "mu", "nu", "xi", "pi", "rho"]
    rng = np.random.default_rng(0)
    different = [f"{a} {b}{i} {c} {i}" for i, (a, b, c) in enumerate(rng.choice(words, size=(10, 3)))]
    assert diversity(same).vendi.value == pytest.approx(1.0)
    assert diversity(["a", "b", "c"]).vendi.value == pytest.approx(3.0)
    assert diversity(["a", "a", "b", "b"]).vendi.value == pytest.approx(2.0)
    assert diversity(different).vendi.value > 6
    assert diversity(same).distinct[0].value == pytest.approx(6 / 70)
    many = diversity([str(i) for i in range(1000)])
    assert (many.texts, round(many.vendi.value)) == (MOST_TEXTS, MOST_TEXTS)
    assert diversity([]).texts == 0
