"""Uses a baseline file as the reference: its samples, its stored token distributions, and the settings that it
fixes."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from edgedistill.errors import VerifyError
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.verify.options import VerifyOptions, spread
from edgedistill.verify.references.baseline_file import REMAKE, Baseline
from edgedistill.verify.references.top_tokens import coarse_divergence
from edgedistill.verify.report.build import Provenance
from edgedistill.verify.sampling.protocol import SampledModel
from edgedistill.verify.sampling.protocol import slices as cut
from edgedistill.verify.sampling.shipped import stated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from edgedistill.runtime.batch.request import SampleKey
    from edgedistill.verify.metrics.token_divergence import TokenDivergence
    from edgedistill.verify.sampling.protocol import Missing
    from edgedistill.verify.types import Drawn, Prompt, Shipped, Suite

    Logits = npt.NDArray[np.float32]


class BaselineModel(SampledModel):
    """A baseline in the place of a model: returns its stored samples, and divergences from its stored distributions."""

    score_rows = 8

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        self.identity = dataclasses.replace(baseline.identity, kind="baseline")

    @property
    def activity(self) -> str:
        """Label for progress."""
        return "reading the baseline"

    @property
    def shares_noise(self) -> bool:
        """Whether its samples were drawn with the same random numbers as other models' (not those of a server)."""
        return self.baseline.identity.kind != "endpoint"

    @property
    def generation_defaults(self) -> dict[str, Any]:
        """The settings it was drawn with."""
        return self.baseline.settings.to_dict()

    @property
    def shipped(self) -> Shipped | None:
        """Template, end tokens and sampling defaults of the model that drew the samples; None in older baselines."""
        return self.baseline.shipped

    @property
    def scored_keys(self) -> frozenset[SampleKey]:
        """Keys of the samples whose distributions are stored."""
        return frozenset(self.baseline.tops)

    def draw_missing(self, missing: Sequence[Missing], settings: DrawSettings) -> Iterator[Drawn]:
        """The stored samples; raises VerifyError for other settings, prompts it lacks, or more samples than it has."""
        self.baseline.check(settings=settings)
        for prompt, indices in missing:
            for index in indices:
                if (prompt.id, index) not in self.baseline.drawn:
                    raise VerifyError(
                        f"The baseline has no sample {index} of `{prompt.id}`; it holds {self.baseline.samples} per "
                        "prompt.",
                        hint=f"Ask for fewer with --samples. {REMAKE}",
                    )
        yield from (self.baseline.drawn[prompt.id, index] for prompt, indices in missing for index in indices)

    def compare(
        self, q: SampledModel, prompt: Prompt, sequences: Sequence[Sequence[int]], *, thinking: bool | None = None
    ) -> list[TokenDivergence]:
        """Lower bounds of KL(baseline || q) on samples of the baseline (see ``baseline_file``).

        Raises:
            VerifyError: A sequence whose distributions are not stored (see ``scored_keys``).
        """
        stored = {
            self.baseline.drawn[key].token_ids: top for key, top in self.baseline.tops.items() if key[0] == prompt.id
        }
        out: list[TokenDivergence] = []
        for sequence in sequences:
            top = stored.get(tuple(sequence))
            if top is None:
                raise VerifyError(
                    f"The baseline stores no distributions for this sample of `{prompt.id}`; it has them for "
                    f"{len(stored)} samples of the prompt.",
                    hint="Compare on those, or make the baseline with more --scored-samples.",
                )
            parts = cut([len(sequence)], q.identity.vocab_size)
            out.append(coarse_divergence(top, q.score(prompt, [sequence], parts, thinking=thinking)))
        return out


class Dictated(NamedTuple):
    """Options, prompts and settings of a run against a baseline.

    ``settings`` are those of the baseline, ``own`` those of the bundle; ``notes`` are sentences about requests that the
    baseline cannot meet.
    """

    options: VerifyOptions
    prompts: list[Prompt]
    settings: DrawSettings
    own: DrawSettings
    notes: list[str]


def as_dictated(suite: Suite, reference: BaselineModel, bundle: SampledModel, options: VerifyOptions) -> Dictated:
    """The settings of a baseline, with all its prompts and samples unless the options have smaller numbers.

    Fewer prompts or samples are used if the options contain numbers, or with the preset ``fast``; then the first
    samples of each prompt, which have the same random numbers as a run with the reference itself. The preset
    ``default`` changes
    nothing: the size of a baseline was chosen when it was made.

    Raises:
        VerifyError: Other settings, another suite or tokenizer, or numbers that exceed the baseline's.
    """
    baseline = reference.baseline
    settings = replace(baseline.settings, **options.overrides)
    baseline.check(
        suite=suite,
        settings=settings,
        tokenizer_sha256=bundle.identity.tokenizer_sha256 or None,
        samples=options.samples,
    )
    stored = {prompt_id for prompt_id, _ in baseline.drawn}
    known = [prompt for prompt in suite.prompts if prompt.id in stored]
    if options.prompts is not None and len(known) < min(options.prompts, len(suite.prompts)):
        raise VerifyError(
            f"The baseline holds {len(known)} prompts of the suite; this run needs {options.prompts}.",
            hint=f"Ask for fewer with --prompts. {REMAKE}",
        )
    plan, fast = options.plan, options.preset == "fast"
    prompts = spread(known, plan.prompts if fast and options.prompts is None else options.prompts)
    samples = options.samples
    if samples is None:
        samples = min(plan.samples, baseline.samples) if fast else baseline.samples
    notes = _beyond_baseline(suite, len(known), baseline.samples, options)
    if options.time_budget is None:  # else the pilot chooses among what the baseline holds
        # Numbers that are the preset's own leave the report its name.
        as_planned = len(prompts) == _planned(suite, options)
        options = replace(
            options,
            samples=None if options.samples is None and samples == plan.samples else samples,
            prompts=options.prompts if as_planned or options.prompts is not None else len(prompts),
        )
    return Dictated(options, prompts, settings, _own(suite, baseline, bundle, options), notes)


def _own(suite: Suite, baseline: Baseline, bundle: SampledModel, options: VerifyOptions) -> DrawSettings:
    """Settings of the bundle: its own for every setting that the baseline's model had of its own, else the baseline's.

    An older baseline, which does not record its model's own settings, fixes all of them.
    """
    if baseline.shipped is None or bundle.shipped is None or options.same_settings:
        return baseline.settings
    suites = {name for name, value in dataclasses.asdict(suite.sampling).items() if value is not None}
    free = set(baseline.shipped.generation) - set(baseline.asked) - set(options.overrides) - suites
    own, unset = stated(bundle.generation_defaults), DrawSettings()
    changes: dict[str, Any] = {name: own.get(name, getattr(unset, name)) for name in free}
    return replace(baseline.settings, **changes)


def _planned(suite: Suite, options: VerifyOptions) -> int:
    """Number of prompts that the preset takes of a suite."""
    return min(len(suite.prompts), options.plan.prompts or len(suite.prompts))


def _beyond_baseline(suite: Suite, prompts: int, samples: int, options: VerifyOptions) -> list[str]:
    """A sentence if the preset needs more prompts or samples than the baseline has."""
    if options.preset == "default":
        return []
    missing = []
    if options.prompts is None and prompts < (planned := _planned(suite, options)):
        missing.append(f"{planned} prompts (the baseline holds {prompts})")
    if options.samples is None and samples < options.plan.samples:
        missing.append(f"{options.plan.samples} samples per prompt (the baseline holds {samples})")
    asked = " and ".join(missing)
    return [f"The preset `{options.preset}` asks for {asked}; all that it holds was used."] if missing else []


def other_versions(baseline: Baseline) -> list[str]:
    """A sentence for each package whose version differs between the baseline and this machine."""
    here = Provenance.here().versions
    return [
        f"The baseline was drawn with {package} {there}, this run has {here[package]}: a change may come from that."
        for package, there in baseline.versions.items()
        if here.get(package, there) != there
    ]
