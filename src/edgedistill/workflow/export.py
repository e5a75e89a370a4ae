"""Calibration, export and the short verification after it, put together: ``edgedistill.export`` and the command.

The bundle is finished and has its name before it is looked at, so that whatever ends the verification (Ctrl-C, too
little memory, a crash of the native runtime) leaves a valid bundle without the record.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.bundle import own_directory
from edgedistill.bundle.bundle import MODEL_CARD, Bundle
from edgedistill.bundle.staging import amend, check_target, remove_bundle
from edgedistill.errors import EdgedistillError
from edgedistill.export import pipeline
from edgedistill.export.layouts import write_layout
from edgedistill.export.model_card import with_verification
from edgedistill.export.options import ExportOptions
from edgedistill.progress import NullProgress
from edgedistill.quantize.gptq import QUICK
from edgedistill.system.child import run_in_child
from edgedistill.traces.traces import Traces
from edgedistill.verify.quick import quick_check
from edgedistill.workflow.calibration_traces import quick_traces, traces_for

if TYPE_CHECKING:
    from edgedistill.export.pipeline import ExportResult
    from edgedistill.progress import Progress


def export(
    model: str | Path,
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    progress: Progress | None = None,
) -> ExportResult:
    """Export ``model`` to a bundle at ``out`` and, unless ``options`` say otherwise, verify briefly how it answers.

    A model too large or slow for that verification on this machine is not verified, and the record says why.

    Args:
        model: Built-in name, local directory, GGUF file or Hub id.
        out: Bundle directory to make; with a ``layout``, the directory of that.
        options: See there.
        progress: Receiver of progress.

    Raises:
        EdgedistillError: As ``pipeline.export``. The verification raises none: what went wrong is in the record.
    """
    options = options or ExportOptions()
    if options.layout is not None:
        return _as_layout(model, Path(out), options, options.layout, progress)
    if options.calibrated and not isinstance(options.calibration, Traces):
        # What cannot be should show before minutes of work.
        check_target(Path(out), force=options.force)
        pipeline.resolve_profile(options)
        options = dataclasses.replace(options, calibration=traces_for(model, options, progress=progress))
    elif pipeline.wants_quick_calibration(options):
        check_target(Path(out), force=options.force)
        traces = quick_traces(model, options, progress=progress)
        if traces is not None:
            options = dataclasses.replace(options, calibration=traces, gptq=options.gptq or QUICK)
    result = pipeline.export(model, out, options, progress=progress)
    if not options.verify:
        return result
    return record_verification(result, reference=options.reference, progress=progress)


def _as_layout(
    model: str | Path, out: Path, options: ExportOptions, layout: str, progress: Progress | None
) -> ExportResult:
    """Export to a bundle beside ``out``, write its layout, remove the bundle."""
    own_directory.require_free(out)  # what is in the way shows before minutes of work
    beside = out.absolute().parent / f".{out.name}.bundle"
    result = export(model, beside, dataclasses.replace(options, layout=None, force=True), progress=progress)
    try:
        write_layout(Bundle.open(beside), layout, out, progress=progress)
    finally:
        remove_bundle(beside)
    return dataclasses.replace(result, path=out)


def record_verification(
    result: ExportResult, *, reference: str | Path | None = None, progress: Progress | None = None
) -> ExportResult:
    """Look at an exported bundle and put what was found into its manifest and model card."""
    found = _look(result.path, reference, progress or NullProgress())
    manifest = dataclasses.replace(result.manifest, verification=found)
    try:
        card = (result.path / MODEL_CARD).read_text(encoding="utf-8")
        manifest = amend(result.path, result.manifest, manifest, with_verification(card, manifest))
    except (EdgedistillError, OSError) as error:
        # The bundle is valid without it; the caller still learns what was found, and that it is not in the bundle.
        manifest = dataclasses.replace(result.manifest, verification={**found, "not_recorded": str(error)})
    return dataclasses.replace(result, manifest=manifest)


def _look(path: Path, reference: str | Path | None, progress: Progress) -> dict[str, Any]:
    """``verify.quick`` in a process of its own, whose crash costs only the record."""
    try:
        return run_in_child(
            quick_check, str(path), reference=None if reference is None else str(reference), progress=progress
        )
    except EdgedistillError as error:
        return {"status": "failed", "reason": str(error)}
