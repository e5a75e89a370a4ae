"""A short look at a fresh bundle, for its manifest.

Must not know: how an export works, the command line.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgedistill.errors import VerifyError
from edgedistill.progress import NullProgress
from edgedistill.verify.analyse import analyse
from edgedistill.verify.bundle_model import open_sampled
from edgedistill.verify.extras import ModelSamples
from edgedistill.verify.options import VerifyOptions
from edgedistill.verify.reference import open_reference
from edgedistill.verify.runner import bundle_margins, provenance
from edgedistill.verify.stages import Run
from edgedistill.verify.suites import load_suite

if TYPE_CHECKING:
    from pathlib import Path


def quick_check(bundle: str | Path, *, reference: str | Path | None = None) -> dict[str, Any]:
    """A short look at a fresh bundle for its manifest: 30 easy prompts, 4 samples each, no divergences.

    With a reference the gate's outcome besides, which with so few samples is rarely decided. Never raises for a model
    that answers badly: what was found is in the result.

    Returns:
        JSON-able: ``suite``, ``prompts``, ``samples``, ``accuracy``, ``agreement``, ``entropy_bits``, ``truncated``,
        ``unparsed``, ``verdict``, and with a reference ``outcome``; or ``{"error": text}``.
    """
    options = VerifyOptions(preset="fast", prompts=30, samples=4, max_new_tokens=256)
    light = replace(options.plan, scored_prompts=0, path_replies=0, variant_samples=0, sweep_prompts=0)
    try:
        loaded = load_suite("arithmetic")
        with ExitStack() as stack:
            ours = stack.enter_context(closing(open_sampled(bundle)))
            theirs = None if reference is None else stack.enter_context(closing(open_reference(reference, bundle)))
            settings = options.draw_settings(loaded.sampling, ours.generation_defaults)
            run = Run(loaded, settings, options, None, NullProgress(), light)
            prompts = options.choose(loaded)
            drawn = run.draw(ours, prompts)
            before = None if theirs is None else ModelSamples(theirs.identity, run.draw(theirs, prompts))
            margins = None if theirs is None else bundle_margins(ours)
            report = analyse(
                loaded,
                run.settings_of(margins),
                ModelSamples(ours.identity, drawn),
                before,
                margins=margins,
                provenance=provenance(),
            )
    except VerifyError as error:
        return {"error": str(error)}
    result = report.bundle_result
    found: dict[str, Any] = {
        "suite": {"name": loaded.name, "sha256": loaded.sha256},
        "prompts": len(prompts),
        "samples": options.n_samples,
        "settings": settings.to_dict(),
        "accuracy": None if result.accuracy is None else result.accuracy.to_dict(),
        "agreement": result.agreement.to_dict(),
        "entropy_bits": result.entropy.to_dict(),
        "truncated": result.form.truncated.value,
        "unparsed": result.form.unparsed.value,
        "verdict": None if result.verdict is None else result.verdict.name,
        "certain": result.verdict is not None and result.verdict.certain,
    }
    if report.gate is not None and report.reference is not None:
        found["reference"] = report.reference.name
        found["outcome"] = report.gate.result.outcome
    return found
