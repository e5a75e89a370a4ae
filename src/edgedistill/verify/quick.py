"""A short verification after an export, whose result goes into the bundle's manifest: 30 prompts, 4 samples of each."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgedistill.errors import BudgetError, EdgedistillError
from edgedistill.progress import NullProgress
from edgedistill.verify.basis import bundle_margins
from edgedistill.verify.models.bundle import open_sampled
from edgedistill.verify.options import VerifyOptions, spread
from edgedistill.verify.references.open import open_reference
from edgedistill.verify.report.build import Provenance, analyse
from edgedistill.verify.report.extras import ModelSamples
from edgedistill.verify.stages import Run
from edgedistill.verify.suites.registry import load_suite

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.progress import Progress
    from edgedistill.runtime.batch.request import DrawSettings
    from edgedistill.verify.models.bundle import BundleModel
    from edgedistill.verify.types import Prompt

PROMPTS, SAMPLES, LONGEST = 30, 4, 256
LEAST_PROMPTS = 8
"""Fewer prompts would show nothing: a bundle that is too slow for this many is skipped."""

SECONDS = 30.0
"""Largest number of seconds that the bundle's replies may take if each of them runs to its limit."""


def quick_check(
    bundle: str | Path,
    *,
    reference: str | Path | None = None,
    seconds: float = SECONDS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Verify a new bundle on 30 easy prompts with 4 samples each, without token scoring.

    With a reference, the result also has the gate's outcome, which is rarely decided with so few samples. A bundle that
    answers badly, or is too large or slow for this machine, does not raise: the result says so.

    Args:
        bundle: Directory of the bundle.
        reference: As for ``verify``; None: none.
        seconds: Largest number of seconds for the bundle's replies; a slow bundle gets fewer prompts, or none.
        progress: Receives replies.

    Returns:
        JSON-able: ``status`` ("checked"), ``suite``, ``prompts``, ``samples``, ``settings``, ``tokens_per_second``,
        ``seconds``, ``accuracy``, ``agreement``, ``entropy_bits``, ``truncated``, ``unparsed``, ``verdict``,
        ``certain``, and with a reference ``reference`` and ``outcome``; or ``status`` ("skipped", "failed") and
        ``reason``.
    """
    started = time.perf_counter()
    progress = progress or NullProgress()
    progress.begin("opening it to verify", 0, "items")
    try:
        with ExitStack() as stack:
            model = stack.enter_context(closing(open_sampled(bundle, check="size")))
            progress.end()
            found = _look(model, bundle, reference, seconds, progress, stack)
    except BudgetError as error:
        return {"status": "skipped", "reason": error.message}
    except EdgedistillError as error:
        return {"status": "failed", "reason": error.message}
    return {**found, "seconds": round(time.perf_counter() - started, 3)}


def _look(
    model: BundleModel,
    bundle: str | Path,
    reference: str | Path | None,
    seconds: float,
    progress: Progress,
    stack: ExitStack,
) -> dict[str, Any]:
    # First, so that a missing reference is reported however slow the bundle is.
    original = None if reference is None else stack.enter_context(closing(open_reference(reference, bundle)))
    loaded = load_suite("arithmetic")
    options = VerifyOptions(preset="fast", samples=SAMPLES, max_new_tokens=LONGEST)
    settings = options.draw_settings(loaded.sampling, model.generation_defaults)
    rate = _tokens_per_second(model, spread(loaded.prompts, 2)[0], settings)
    affordable = min(PROMPTS, int(seconds * rate / (SAMPLES * LONGEST)))
    if affordable < LEAST_PROMPTS:
        return {
            "status": "skipped",
            "reason": f"the bundle decodes {rate:.0f} tokens/s on this machine, so that {LEAST_PROMPTS} questions "
            f"could take {LEAST_PROMPTS * SAMPLES * LONGEST / rate:.0f} s; the limit is {seconds:.0f} s",
        }
    options = replace(options, prompts=affordable)
    light = replace(options.plan, scored_prompts=0, path_replies=0, variant_samples=0, sweep_prompts=0)
    before_settings = None
    if original is not None:
        defaults = original.generation_defaults, model.generation_defaults
        before_settings, _ = options.both_settings(loaded.sampling, *defaults)
    run = Run(loaded, settings, options, None, progress, light, reference_settings=before_settings)
    prompts = options.choose(loaded)
    drawn = run.draw(model, prompts)
    before = None if original is None else ModelSamples(original.identity, run.draw(original, prompts, reference=True))
    margins = None if original is None else bundle_margins(model)
    report = analyse(
        loaded,
        run.settings_of(margins),
        ModelSamples(model.identity, drawn),
        before,
        margins=margins,
        provenance=Provenance.here(),
    )
    result = report.bundle_result
    found: dict[str, Any] = {
        "status": "checked",
        "suite": {"name": loaded.name, "sha256": loaded.sha256},
        "prompts": len(prompts),
        "samples": options.n_samples,
        "settings": settings.to_dict(),
        "tokens_per_second": round(rate, 1),
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


def _tokens_per_second(model: BundleModel, prompt: Prompt, settings: DrawSettings) -> float:
    """Tokens per second of a few short replies, prefill included; cautious, since larger batches are faster."""
    list(model.draw([prompt], 2, settings.replace(max_new_tokens=2)))  # the first run is slower than all that follow
    short = settings.replace(max_new_tokens=16)
    started = time.perf_counter()
    tokens = sum(len(one.token_ids) for one in model.draw([prompt], SAMPLES, short))
    return tokens / (time.perf_counter() - started)
