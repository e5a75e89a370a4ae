"""The quick calibration of every export: when it runs, what it gains, and that it resumes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exporting import export

import edgedistill
from edgedistill.errors import CalibrationError, TemplateError
from edgedistill.export.calibrate import gptq_layers
from edgedistill.export.options import ExportOptions
from edgedistill.export.pipeline import wants_quick_calibration
from edgedistill.progress import NullProgress
from edgedistill.quantize.gptq import QUICK
from edgedistill.runtime.model import open_bundle
from edgedistill.traces.prompts import BUILT_IN, built_in_texts
from edgedistill.workflow import calibration_traces

QUESTIONS = (
    "What is 63 + 48?",
    "A shelf holds 14 books, and 5 are taken away. How many are left?",
    "What is 9 * 12?",
    "Tom has 3 boxes with 8 pens each. How many pens are there?",
)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (ExportOptions(), True),
        (ExportOptions(format="int4-b64"), True),
        (ExportOptions(format="int6"), True),
        (ExportOptions(format="int4-b64-search"), False),
        (ExportOptions(format="int4-rtn"), False),
        (ExportOptions(format="int8"), False),
        (ExportOptions(format="fp32"), False),
        (ExportOptions(profile="laptop-cpu-int8"), False),
        (ExportOptions(calibrate=False), False),
        (ExportOptions(exporter="optimum"), False),
    ],
)
def test_it_runs_where_few_bits_leave_the_method_open(options: ExportOptions, expected: bool) -> None:
    assert wants_quick_calibration(options) is expected


def test_it_comes_nearer_to_the_original_and_says_so(tmp_path: Path) -> None:
    reference = export("tiny-reasoner", tmp_path / "fp32", profile="reference-fp32", check=False)
    plain = export("tiny-reasoner", tmp_path / "plain", format="int4-b32", check=False)
    quick = export("tiny-reasoner", tmp_path / "quick", format="int4-b32", check=False, calibrate=None)
    assert plain.manifest.calibration == {}
    assert quick.manifest.calibration["origin"] == BUILT_IN
    assert quick.manifest.calibration["gptq"]["sequential"] is False
    assert quick.manifest.calibration["failed"] == {}
    truth = _log_probabilities(reference.path)
    before, after = (_kl(truth, _log_probabilities(made.path)) for made in (plain, quick))
    assert after < 0.8 * before, f"{after / before:.2f} left"


def test_an_interrupted_one_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(name: str) -> Any:
        return export("tiny-reasoner", tmp_path / name, format="int4-b32", check=False, calibrate=None)

    whole = made("whole")
    together = gptq_layers._Run._together

    def interrupt(self: Any, index: int, *rest: Any, **more: Any) -> None:
        if index == 2:
            raise KeyboardInterrupt
        together(self, index, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(gptq_layers._Run, "_together", interrupt)
        with pytest.raises(KeyboardInterrupt):
            made("part")
    resumed = made("part")
    assert resumed.reused_weights > 8
    assert (resumed.path / "weights.bin").read_bytes() == (whole.path / "weights.bin").read_bytes()


def test_it_says_how_long_the_rest_will_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []

    class Noted(NullProgress):
        def note(self, sentence: str) -> None:
            notes.append(sentence)

    monkeypatch.setattr(gptq_layers, "REPORTED_FROM", 0.0)
    monkeypatch.setattr(gptq_layers, "estimate_seconds", lambda *_: 1e6)  # what the layers then show is news
    options = ExportOptions(format="int4-b32", check=False, verify=False)
    edgedistill.export("tiny-reasoner", tmp_path / "out", options=options, progress=Noted())
    said = [note for note in notes if note.startswith("calibrating")]
    assert re.match(
        r"calibrating 4 layers on \d+ tokens takes about 16666 min 40 s here; finished layers are kept", said[0]
    )
    assert "for the remaining 3" in said[1]


def test_what_the_profile_keeps_is_kept(tmp_path: Path) -> None:
    # Quick calibration is no reason to quantize anew what lies in 4 bits already, as --calibrate is.
    options = ExportOptions(keep_quantization=True, gptq=QUICK, calibration="text.txt")
    assert options.calibrated
    assert not options.thorough


def test_a_tokenizer_that_does_not_work_leaves_scale_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise CalibrationError("tokenizer.json cannot be read")

    monkeypatch.setattr(calibration_traces, "built_in_texts", broken)
    made = export("tiny-reasoner", tmp_path / "out", format="int4-b32", check=False, calibrate=None)
    assert made.manifest.calibration == {}


def test_texts_that_a_template_refuses_do_without_it() -> None:
    def refuse(messages: list[dict[str, Any]]) -> str:
        raise TemplateError("no system message")

    texts = list(built_in_texts(refuse))
    assert len(texts) > 10
    assert any("72** rolls" in text for text in texts)


def _log_probabilities(bundle: Path) -> np.ndarray:
    with open_bundle(bundle) as model:
        parts = []
        for question in QUESTIONS:
            ids = np.array(model.encode(f"{question} Think step by step, then give the answer.", raw=True), np.int64)
            for scores in model.session.decoder().score(ids[None], chunk=256):
                logits = scores.logits.astype(np.float64)
                logits -= logits.max(1, keepdims=True)
                parts.append(logits - np.log(np.exp(logits).sum(1, keepdims=True)))
    return np.concatenate(parts)


def _kl(truth: np.ndarray, other: np.ndarray) -> float:
    return float((np.exp(truth) * (truth - other)).sum(1).mean())
