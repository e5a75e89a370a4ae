"""Estimated sensitivities against measured ones on tiny-reasoner, and what is kept of an interrupted estimate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.export.mixed_precision import sensitivity, sensitivity_estimate
from edgedistill.export.mixed_precision.sensitivity_estimate import estimate, followed_layers
from edgedistill.export.options import ExportOptions
from edgedistill.export.plan import make_plan
from edgedistill.profile.profile import load_profile
from edgedistill.quantize.plan import parse_format
from edgedistill.workflow.calibration_traces import traces_for

FORMATS = [parse_format(label) for label in ("int4-b32-asym-search-s8", "int8-b32-sym-search-s8", "fp32")]


def test_the_estimate_orders_matrices_as_measuring_does_and_goes_on(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.setattr(sensitivity, "TOKENS", 256)
    traces = traces_for("tiny-reasoner", ExportOptions(calibration_tokens=256))
    with open_checkpoint("tiny-reasoner") as checkpoint:
        plan = make_plan(checkpoint, load_profile("reference-fp32"))
        arguments = (plan, checkpoint.tensors, traces, FORMATS)
        measured = sensitivity.measure(*arguments, source_hash="h", threads=1)

        def interrupt(run: sensitivity_estimate._Run, weight: Any, *rest: Any, **more: Any) -> object:
            if len(run._known) == 9:
                raise KeyboardInterrupt
            return compare(run, weight, *rest, **more)

        compare = sensitivity_estimate._Run._compare
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(sensitivity_estimate._Run, "_compare", interrupt)
            estimate(*arguments, source_hash="h", threads=1, depths=2)
        found = estimate(*arguments, source_hash="h", threads=1, depths=2)
        assert found == estimate(*arguments, source_hash="other", threads=1, depths=2)
    assert found.keys() == measured.keys()
    label = FORMATS[0].label()
    layers = [name for name in measured if name.startswith("layers.")]
    between = [name for name in layers if name.split(".")[1] in "12"]
    for names, least in ((layers, 0.9), (between, 0.7)):
        a, b = (np.array([values[name][label] for name in names]) for values in (found, measured))
        ranks = np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1]
        assert ranks > least
        assert 0.5 < np.median(a / b) < 2
    assert found["embed"][label] == pytest.approx(measured["embed"][label], rel=0.3)
    for values in found.values():
        assert values["fp32"] == 0
        assert values[FORMATS[1].label()] < 0.1 * values[label]


def test_followed_layers_are_spread_from_the_first_to_the_last() -> None:
    assert followed_layers(36, 4) == (0, 12, 23, 35)
    assert followed_layers(3, 4) == (0, 1, 2)
    assert followed_layers(1, 4) == (0,)
