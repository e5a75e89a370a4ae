"""What a baseline dictates to the run that is compared with it: settings, prompts, samples."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from edgedistill.errors import VerifyError
from edgedistill.verify.options import VerifyOptions, spread
from edgedistill.verify.references.baseline_file import REMAKE, Baseline
from edgedistill.verify.report.provenance import provenance

if TYPE_CHECKING:
    from edgedistill.runtime.batch.request import DrawSettings
    from edgedistill.verify.models.bundle import BundleModel
    from edgedistill.verify.references.baseline import BaselineModel
    from edgedistill.verify.types import Prompt, Suite


class Dictated(NamedTuple):
    """What is run against a baseline; ``notes``: what was asked for in vain."""

    options: VerifyOptions
    prompts: list[Prompt]
    settings: DrawSettings
    notes: list[str]


def as_dictated(suite: Suite, reference: BaselineModel, bundle: BundleModel, options: VerifyOptions) -> Dictated:
    """The settings of a baseline, and all its prompts and samples unless the options ask for fewer.

    Numbers that were given ask for fewer, and so does the preset ``fast``: the first samples of each prompt, whose
    noise is that of a run with the reference itself. The preset ``default`` asks for nothing: the size of a baseline
    was chosen when it was made.

    Raises:
        VerifyError: other settings, another suite or tokenizer, or numbers that exceed the baseline's.
    """
    baseline = reference.baseline
    settings = replace(baseline.settings, **options.overrides)
    baseline.check(
        suite=suite,
        settings=settings,
        tokenizer_sha256=bundle.identity.tokenizer_sha256,
        samples=options.samples,
    )
    stored = {prompt_id for prompt_id, _ in baseline.drawn}
    known = [prompt for prompt in suite.prompts if prompt.id in stored]
    if options.prompts is not None and len(known) < min(options.prompts, len(suite.prompts)):
        raise VerifyError(
            f"the baseline holds {len(known)} prompts of the suite, {options.prompts} are wanted.",
            hint=f"Ask for fewer with --prompts. {REMAKE}",
        )
    plan, fast = options.plan, options.preset == "fast"
    prompts = spread(known, plan.prompts if fast and options.prompts is None else options.prompts)
    samples = options.samples
    if samples is None:
        samples = min(plan.samples, baseline.samples) if fast else baseline.samples
    notes = _in_vain(suite, len(known), baseline.samples, options)
    # Numbers that are the preset's own leave the report its name.
    as_planned = len(prompts) == _planned(suite, options)
    options = replace(
        options,
        samples=None if options.samples is None and samples == plan.samples else samples,
        prompts=options.prompts if as_planned or options.prompts is not None else len(prompts),
    )
    return Dictated(options, prompts, settings, notes)


def _planned(suite: Suite, options: VerifyOptions) -> int:
    """Prompts that the preset takes of a suite."""
    return min(len(suite.prompts), options.plan.prompts or len(suite.prompts))


def _in_vain(suite: Suite, prompts: int, samples: int, options: VerifyOptions) -> list[str]:
    """What a preset that was asked for would take and the baseline does not hold, in a sentence."""
    if options.preset == "default":
        return []
    missing = []
    if options.prompts is None and prompts < (planned := _planned(suite, options)):
        missing.append(f"{planned} prompts (the baseline holds {prompts})")
    if options.samples is None and samples < options.plan.samples:
        missing.append(f"{options.plan.samples} samples per prompt (the baseline holds {samples})")
    return (
        [f"The preset `{options.preset}` asks for {' and '.join(missing)}: what there is was used."] if missing else []
    )


def other_versions(baseline: Baseline) -> list[str]:
    """A sentence for each package that drew the baseline in another version than it has here."""
    here = provenance().versions
    return [
        f"The baseline was drawn with {package} {there}, this run has {here[package]}: part of a change may be theirs."
        for package, there in baseline.versions.items()
        if here.get(package, there) != there
    ]
