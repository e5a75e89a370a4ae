"""Runs around a baseline: making one, whether it fits a bundle, what it dictates to the run that uses it.

Must not know: the file, statistics, gates.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bundle import Bundle
from edgedistill.errors import UsageError, VerifyError
from edgedistill.progress import NullProgress
from edgedistill.verify.baseline import REMAKE, SCORED_SAMPLES, Baseline
from edgedistill.verify.baseline_model import BaselineModel
from edgedistill.verify.bundle_model import BundleModel, bundle_identity
from edgedistill.verify.models import require_same_source
from edgedistill.verify.options import VerifyOptions, spread
from edgedistill.verify.provenance import provenance
from edgedistill.verify.reference import open_reference
from edgedistill.verify.spread import spread_over
from edgedistill.verify.stages import Run
from edgedistill.verify.suites import load_suite

if TYPE_CHECKING:
    from edgedistill.progress import Progress
    from edgedistill.verify.cluster import Cluster
    from edgedistill.verify.run_settings import DrawSettings
    from edgedistill.verify.types import Prompt, Suite


def make_baseline(
    model: str | Path,
    *,
    suite: str | Path | Suite = "arithmetic",
    options: VerifyOptions | None = None,
    scored_samples: int = SCORED_SAMPLES,
    store: Path | None = None,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> Baseline:
    """Samples of a reference, to be saved: ``model`` is a bundle or ``hf:CHECKPOINT``.

    Raises:
        EdgedistillError: as ``verify``.
    """
    options = options or VerifyOptions()
    loaded = load_suite(suite) if isinstance(suite, str | Path) else suite
    progress = progress or NullProgress()
    with closing(open_reference(model, model)) as reference:
        if isinstance(reference, BaselineModel):
            raise UsageError(f"{model} is a baseline already.", hint="Give the model that it was made of.")
        prompts = options.choose(loaded)
        settings = options.draw_settings(loaded.sampling, reference.generation_defaults)
        run = Run(loaded, settings, options, store, progress)
        run.audit_sampler(reference, prompts)
        drawn = run.draw(spread_over(cluster, reference), prompts)
        return Baseline.create(
            reference, loaded, prompts, settings, drawn, scored_samples=scored_samples, progress=progress
        )


def check_baseline(baseline: Baseline, bundle: str | Path) -> None:
    """Raises VerifyError unless a baseline fits a bundle: its tokenizer, its original."""
    identity = bundle_identity(Bundle.open(bundle, check="full"))
    baseline.check(tokenizer_sha256=identity.tokenizer_sha256)
    require_same_source(baseline.identity, identity)


def as_dictated(
    suite: Suite, reference: BaselineModel, bundle: BundleModel, options: VerifyOptions
) -> tuple[VerifyOptions, list[Prompt], DrawSettings]:
    """Options, prompts and settings that a baseline dictates; what was asked for otherwise is refused."""
    baseline = reference.baseline
    settings = replace(baseline.settings, **options.overrides)
    options = replace(options, samples=baseline.samples if options.samples is None else options.samples)
    baseline.check(
        suite=suite,
        settings=settings,
        tokenizer_sha256=bundle.identity.tokenizer_sha256,
        samples=options.n_samples,
    )
    stored = {prompt_id for prompt_id, _ in baseline.drawn}
    known = [prompt for prompt in suite.prompts if prompt.id in stored]
    if options.prompts is not None and len(known) < min(options.prompts, len(suite.prompts)):
        raise VerifyError(
            f"the baseline holds {len(known)} prompts of the suite, {options.prompts} are wanted.",
            hint=f"Ask for fewer with --prompts. {REMAKE}",
        )
    prompts = spread(known, options.prompts)
    return options, prompts, settings


def other_versions(baseline: Baseline) -> list[str]:
    """A sentence for each package that drew the baseline in another version than it has here."""
    here = provenance().versions
    return [
        f"The baseline was drawn with {package} {there}, this run has {here[package]}: part of a change may be theirs."
        for package, there in baseline.versions.items()
        if here.get(package, there) != there
    ]
