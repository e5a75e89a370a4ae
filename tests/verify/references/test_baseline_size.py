"""How much of a baseline is used: all of it, unless a preset or a number asks for less."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from engine_support import SETTINGS, fake_drawn
from report_support import identity, make_suite

from edgedistill.errors import VerifyError
from edgedistill.verify.options import PRESETS, VerifyOptions
from edgedistill.verify.references.baseline import BaselineModel, as_dictated
from edgedistill.verify.references.baseline_file import Baseline

SUITE = make_suite(200)
BUNDLE: Any = SimpleNamespace(identity=identity("bundle"))


def dictated(prompts: int, samples: int, /, **options):
    drawn = [fake_drawn(prompt.id, index) for prompt in SUITE.prompts[:prompts] for index in range(samples)]
    baseline = Baseline(
        "2026-01-01T00:00:00+00:00", SUITE.name, SUITE.sha256, SETTINGS, identity("reference"), {},
        {one.key: one for one in drawn}, {},
    )  # fmt: skip
    found = as_dictated(SUITE, BaselineModel(baseline), BUNDLE, VerifyOptions(**options))
    assert found.settings == SETTINGS
    keys = [(p.id, i) for p in found.prompts for i in range(found.options.n_samples)]
    assert set(keys) <= baseline.drawn.keys()
    return found


def test_fast_takes_no_more_than_the_preset_says() -> None:
    found = dictated(200, 64, preset="fast")
    assert (len(found.prompts), found.options.n_samples) == (150, 16)
    assert found.prompts == VerifyOptions(preset="fast").choose(SUITE)
    assert (found.options.label, found.notes) == ("fast", [])


def test_fast_takes_no_more_than_there_is_and_says_so() -> None:
    found = dictated(40, 8, preset="fast")
    assert (len(found.prompts), found.options.n_samples) == (40, 8)
    assert found.options.label == "custom"
    assert found.notes == [
        "The preset `fast` asks for 150 prompts (the baseline holds 40) and 16 samples per prompt (the baseline holds "
        "8); all that it holds was used."
    ]


def test_thorough_says_what_the_baseline_lacks() -> None:
    found = dictated(200, 64, preset="thorough")
    assert (len(found.prompts), found.options.n_samples) == (200, 64)
    assert found.notes == [
        "The preset `thorough` asks for 128 samples per prompt (the baseline holds 64); all that it holds was used."
    ]
    whole = dictated(200, PRESETS["thorough"].samples, preset="thorough")
    assert (whole.options.label, whole.notes) == ("thorough", [])


@pytest.mark.parametrize(("held", "label"), [(16, "custom"), (32, "default"), (80, "custom")])
def test_without_a_preset_the_size_is_the_baseline_s(held, label) -> None:
    found = dictated(200, held)
    assert (len(found.prompts), found.options.n_samples) == (200, held)
    assert (found.options.label, found.notes) == (label, [])


def test_numbers_ask_for_less() -> None:
    found = dictated(200, 64, preset="thorough", prompts=50, samples=4)
    assert (len(found.prompts), found.options.n_samples, found.notes) == (50, 4, [])
    in_vain = dictated(200, 64, preset="fast", prompts=300)
    assert (len(in_vain.prompts), in_vain.options.prompts) == (200, 300)  # the report says so
    assert dictated(200, 64, preset="fast", prompts=180).options.n_samples == 16
    assert len(dictated(200, 64, preset="fast", samples=32).prompts) == 150


def test_numbers_that_exceed_the_baseline_are_refused() -> None:
    with pytest.raises(VerifyError, match="holds 8 samples per prompt; this run needs 9"):
        dictated(200, 8, preset="fast", samples=9)
    with pytest.raises(VerifyError, match="holds 40 prompts of the suite; this run needs 41"):
        dictated(40, 8, preset="fast", prompts=41)
