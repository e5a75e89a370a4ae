"""Calibration, export and the short verification after it, put together: ``edgedistill.export`` and the command.

The bundle is finished and has its name before it is looked at, so that whatever ends the verification (Ctrl-C, too
little memory, a crash of the native runtime) leaves a valid bundle without the record.

Must not know: how either of the two works, how progress is drawn.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.bundle.bundle import MODEL_CARD
from edgedistill.bundle.staging import check_target
from edgedistill.bundle.update import amend
from edgedistill.bundle.verification_record import section
from edgedistill.errors import EdgedistillError
from edgedistill.export import pipeline
from edgedistill.progress import NullProgress
from edgedistill.traces.traces import Traces
from edgedistill.workflow.calibration_traces import DEFAULT_TOKENS, traces_for

if TYPE_CHECKING:
    from edgedistill.export.pipeline import ExportResult
    from edgedistill.progress import Progress


def export(
    model: str | Path,
    out: str | Path,
    *,
    calibrate: bool = False,
    calibration: str | Path | Traces | None = None,
    calibration_tokens: int = DEFAULT_TOKENS,
    verify: bool = True,
    reference: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> ExportResult:
    """Export ``model`` to a bundle at ``out`` and take a short look at how it answers.

    Args:
        model, out, options: As ``edgedistill.export.pipeline.export`` takes them (profile, weight_format, force, ...).
        calibrate: Quantize the layers so that their outputs change least on the model's own traces (format method
            ``gptq`` instead of ``search``). Takes minutes for 135 M parameters.
        calibration: Text or traces to calibrate with instead; implies ``calibrate``.
        calibration_tokens: How many tokens of either.
        verify: Ask the bundle some questions and record the outcome in its manifest and model card. A model too large
            or slow for that on this machine is left out, and the record says why.
        reference: Also compare with this one; what ``edgedistill.verify`` takes as its reference.
        progress: Receiver of progress.

    Raises:
        EdgedistillError: As ``pipeline.export``. The verification raises none: what went wrong is in the record.
        TypeError: An option that the pipeline does not know.
    """
    if calibrate or calibration is not None:
        # What cannot be should show before minutes of work.
        check_target(Path(out), force=bool(options.get("force")))
        overrides = ("profile", "weight_format", "block_size", "kv_cache", "prefill_format", "exporter")
        pipeline.resolve_profile(
            **{name: options[name] for name in overrides if name in options},
            calibrated=True,
            budgeted=options.get("budget") is not None,
        )
        options["calibration"] = _traces(model, calibration, calibration_tokens, options, progress)
    result = pipeline.export(model, out, progress=progress, **options)
    return record_verification(result, reference=reference, progress=progress) if verify else result


def _traces(
    model: str | Path,
    calibration: str | Path | Traces | None,
    tokens: int,
    options: dict[str, Any],
    progress: Progress | None,
) -> Traces:
    if isinstance(calibration, Traces):
        return calibration
    source = {name: options[name] for name in ("adapter", "revision", "offline", "profile") if name in options}
    file = None if calibration is None else Path(calibration)
    return traces_for(model, file=file, tokens=tokens, progress=progress, **source)


def record_verification(
    result: ExportResult, *, reference: str | Path | None = None, progress: Progress | None = None
) -> ExportResult:
    """Look at an exported bundle and put what was found into its manifest and model card."""
    found = _look(result.path, reference, progress or NullProgress())
    manifest = dataclasses.replace(result.manifest, verification=found)
    try:
        card = (result.path / MODEL_CARD).read_text(encoding="utf-8")
        manifest = amend(result.path, result.manifest, manifest, {MODEL_CARD: f"{card.rstrip()}\n\n{section(found)}"})
    except (EdgedistillError, OSError) as error:
        # The bundle is valid without it; the caller still learns what was found, and that it is not in the bundle.
        manifest = dataclasses.replace(result.manifest, verification={**found, "not_recorded": str(error)})
    return dataclasses.replace(result, manifest=manifest)


def _look(path: Path, reference: str | Path | None, progress: Progress) -> dict[str, Any]:
    """``verify.quick`` in a process of its own, its progress passed on."""
    command = [sys.executable, "-m", "edgedistill.verify.quick", str(path)]
    if reference is not None:
        command.append(str(reference))
    found: dict[str, Any] | None = None
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as noise:
        progress.begin("opening it to verify", 0, "items")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=noise, text=True, encoding="utf-8") as process:
            try:
                for line in process.stdout or ():
                    found = _pass_on(line, progress) or found
            except BaseException:
                process.kill()
                raise
        progress.end()
        noise.seek(0)
        last = noise.read().strip().splitlines()[-1:]
    if found is None:
        reason = last[0] if last else f"its process ended with exit code {process.returncode}"
        return {"status": "failed", "reason": reason}
    return found


def _pass_on(line: str, progress: Progress) -> dict[str, Any] | None:
    """A line of the child; the result, if it is that."""
    try:
        told: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    if "begin" in told:
        progress.end()
        progress.begin(told["begin"], told["total"], told["unit"])
    elif "advance" in told:
        progress.advance(told["advance"])
    elif "end" in told:
        progress.end()
    return told.get("result")
