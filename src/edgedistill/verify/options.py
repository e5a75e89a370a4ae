"""Options of an audit and of a verification: presets, overrides, margins. They are checked before anything is
sampled."""

from __future__ import annotations

import dataclasses
import difflib
import math
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgedistill.errors import UsageError, VerifyError
from edgedistill.renamed import fields_accept_old
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.verify.gate.endpoints import Margins
from edgedistill.verify.sampling.shipped import stated
from edgedistill.verify.types import Procedure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgedistill.runtime.settings import Numerics
    from edgedistill.trajectories.options import VoteRule
    from edgedistill.verify.gate.endpoints import Estimand
    from edgedistill.verify.types import ProcedureName, Prompt, Suite, SuiteSampling

PresetName = Literal["fast", "default", "thorough"]
MOST_SAMPLES = 100_000


@dataclass(frozen=True, slots=True)
class Preset:
    """Size of a run.

    Attributes:
        prompts: Largest number of prompts of the suite; None: all.
        samples: Replies per prompt and model.
        scored_prompts, scored_samples: Number of prompts, and of replies of each, whose tokens both models score.
        on_policy: Score the bundle's own replies, too, for which the reference has to be a model.
        path_replies: Replies whose tokens are also decoded one at a time, to compare the numerical paths.
        variant_samples: Samples of every variant, for the perturbations of an audit; 0: none.
        sweep_prompts, sweep_samples: Size of the temperature sweep of an audit.
    """

    prompts: int | None
    samples: int
    scored_prompts: int
    scored_samples: int
    on_policy: bool
    path_replies: int
    variant_samples: int
    sweep_prompts: int
    sweep_samples: int


PRESETS: Mapping[PresetName, Preset] = MappingProxyType(
    {
        # Fast scores only tokens that are there already: the reference's.
        "fast": Preset(150, 16, 30, 1, False, 5, 0, 20, 4),
        "default": Preset(None, 32, 60, 2, True, 10, 4, 30, 8),
        "thorough": Preset(None, 128, 200, 4, True, 20, 16, 60, 16),
    }
)


@fields_accept_old(mode="numerics")
@dataclass(frozen=True, slots=True)
class AuditOptions:
    """Settings of an audit; None leaves a setting to the preset, the suite or the bundle.

    Attributes:
        preset: Size of the run: ``fast``, ``default`` or ``thorough`` (see ``PRESETS``).
        prompts: Number of prompts, spread evenly over the suite.
        samples: Replies to each prompt.
        temperature, top_p, top_k, min_p, max_new_tokens: Sampling, as in ``GenerationSettings``.
        thinking: Ask the chat template for reasoning (True) or none (False).
        seed: Of the random numbers.
        numerics: Numerical path that replies are decoded on: ``fast`` (as deployed) or ``exact``.
        procedure: Score answers instead of single replies drawn in batches: one reply (``single``), the vote of several
            trajectories (``vote``), or a pass that reads them (``deliberate``). Samples are answers then: by default
            the preset's number divided by the trajectories of each, at least 2.
        trajectories: Number for each answer; None: 8.
        vote: Rule of the vote; None: ``majority``.
        alpha: Level of each one-sided test; intervals have the level 1 - alpha.
        second_opinion: Let math-verify decide which differently spelt answers mean the same (extra: math).
    """

    preset: PresetName = "default"
    prompts: int | None = None
    samples: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    max_new_tokens: int | None = None
    thinking: bool | None = None
    seed: int | None = None
    numerics: Numerics | None = None
    procedure: ProcedureName | None = None
    trajectories: int | None = None
    vote: VoteRule | None = None
    alpha: float = 0.05
    second_opinion: bool = False

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise UsageError(f"There is no preset {self.preset!r}; expected one of {', '.join(PRESETS)}.")
        if not 2 <= self.n_samples <= MOST_SAMPLES:
            raise UsageError(
                f"--samples is {self.n_samples}; expected 2 to {MOST_SAMPLES}, since one sample agrees with nothing.",
                hint="Use --samples 16 or more.",
            )
        if self.prompts is not None and self.prompts < 2:
            raise UsageError(
                f"--prompts is {self.prompts}; a verdict needs at least 2 prompts.",
                hint="Leave --prompts out to take the whole suite.",
            )
        if not 0 < self.alpha < 0.5:
            raise UsageError(f"alpha is {self.alpha:g}; expected more than 0 and less than 0.5, usually 0.05.")
        if self.seed is not None and not 0 <= self.seed < 1 << 64:
            raise UsageError(f"--seed is {self.seed}; expected a whole number from 0 to {(1 << 64) - 1}.")
        for name in ("trajectories", "vote"):
            if self.procedure in (None, "single") and getattr(self, name) is not None:
                raise UsageError(
                    f"--{name} belongs to the procedures vote and deliberate.", hint="Add --procedure vote."
                )
        _ = self.scored

    @property
    def scored(self) -> Procedure | None:
        """The procedure whose answers are scored; None for single replies drawn in batches."""
        if self.procedure is None:
            return None
        return Procedure(self.procedure, 8 if self.trajectories is None else self.trajectories, self.vote or "majority")

    @property
    def plan(self) -> Preset:
        """The preset."""
        return PRESETS[self.preset]

    @property
    def n_samples(self) -> int:
        """Samples per prompt and model."""
        return self.plan.samples if self.samples is None else self.samples

    @property
    def label(self) -> str:
        """Name of the preset, or ``custom`` if its size was overridden."""
        return self.preset if self.samples is None and self.prompts is None else "custom"

    def draw_settings(self, sampling: SuiteSampling, defaults: Mapping[str, Any]) -> DrawSettings:
        """Sampling settings: these options over the suite's over the bundle's. Raises GenerationError."""
        return DrawSettings.resolve(dataclasses.asdict(sampling), defaults, **self.overrides)

    def both_settings(
        self, sampling: SuiteSampling, reference: Mapping[str, Any], bundle: Mapping[str, Any]
    ) -> tuple[DrawSettings, DrawSettings]:
        """Settings of the reference and of the bundle: these options, else the suite's, else each model's own.

        If the reference has no settings of its own, it is sampled with the bundle's. Raises GenerationError.

        Args:
            reference, bundle: ``SampledModel.generation_defaults``.
        """
        own = stated(bundle)
        of_reference = self.draw_settings(sampling, own | stated(reference))
        same = isinstance(self, VerifyOptions) and self.same_settings
        return of_reference, of_reference if same else self.draw_settings(sampling, own)

    @property
    def overrides(self) -> dict[str, Any]:
        """The sampling settings that these options contain."""
        names = ("temperature", "top_p", "top_k", "min_p", "max_new_tokens", "thinking", "seed", "numerics")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    def choose(self, suite: Suite) -> list[Prompt]:
        """The prompts of the run, in the order of the suite and spread evenly over it, so that every band has some."""
        wanted = self.prompts if self.prompts is not None else self.plan.prompts
        if len(suite.prompts) < 2:
            raise VerifyError(
                f"Suite `{suite.name}` has {len(suite.prompts)} prompt; a verdict needs at least 2.",
                hint="Add prompts to it.",
            )
        return spread(suite.prompts, wanted)


@fields_accept_old(mode="numerics")
@dataclass(frozen=True, slots=True)
class VerifyOptions(AuditOptions):
    """Settings of a verification: those of an audit, and those of the gate.

    Attributes:
        sequential: Stop as soon as the evidence suffices for a verdict.
        margins: Replace margins of the profile, by name (fields of ``gate.endpoints.Margins``).
        estimand: What the verdict is about: these prompts (``suite``) or prompts like these (``population``). None:
            ``suite``, or ``population`` for a sequential run.
        same_settings: Sample the bundle with the reference's settings, which isolates the effect of the weights; else
            each model with its own.
        screen: First compare the bundle's answers after the reference's reasoning, and stop if these fail; None: if
            that is a small part of the run.
        time_budget: Seconds after which the run ends; a pilot chooses prompts, samples and the limit of tokens.
    """

    sequential: bool = False
    margins: Mapping[str, float] = field(default_factory=dict)
    estimand: Estimand | None = None
    same_settings: bool = False
    time_budget: float | None = None
    screen: bool | None = None

    def __post_init__(self) -> None:
        AuditOptions.__post_init__(self)
        if self.sequential and self.estimand == "suite":
            raise UsageError(
                "A sequential run samples its prompts, so its verdict is about all prompts like these, not the suite.",
                hint="Drop --sequential, or use --estimand population.",
            )
        if self.time_budget is None:
            return
        if not 0 < self.time_budget < math.inf:
            raise UsageError(f"The time budget is {self.time_budget:g} s; expected more than 0, for instance 20m.")
        if self.prompts is not None or self.samples is not None:
            raise UsageError(
                "A time budget chooses the number of prompts and samples.", hint="Drop --prompts and --samples."
            )
        if self.procedure is not None:
            raise UsageError("A time budget works with single replies only.", hint="Drop --procedure.")

    @property
    def about(self) -> Estimand:
        """The estimand."""
        return self.estimand or ("population" if self.sequential else "suite")


def spread(prompts: Sequence[Prompt], most: int | None) -> list[Prompt]:
    """At most ``most`` of the prompts, evenly spaced."""
    if most is None or most >= len(prompts):
        return list(prompts)
    return [prompts[int(i)] for i in np.linspace(0, len(prompts) - 1, most)]


def wider_margins(margins: Margins, asked: Mapping[str, float]) -> list[str]:
    """A sentence for the user about the margins of a bundle's profile that are wider than the defaults and that the
    options do not contain (``asked``): otherwise a bundle could loosen its own test unnoticed.
    """
    usual = Margins()
    wider = [
        f"{entry.name} {getattr(margins, entry.name):g} instead of {getattr(usual, entry.name):g}"
        for entry in dataclasses.fields(Margins)
        if entry.name not in asked and getattr(margins, entry.name) > getattr(usual, entry.name)
        if entry.name != "shorter_ratio"
    ]
    if not wider:
        return []
    return [f"The bundle's profile has wider margins than usual: {', '.join(wider)} (--margin sets others)."]


def resolve_margins(base: Margins, overrides: Mapping[str, float]) -> Margins:
    """The profile's margins with the overrides.

    Raises:
        UsageError: An unknown name, or a margin out of range.
    """
    names = [entry.name for entry in dataclasses.fields(Margins)]
    for name in overrides:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"Did you mean {near[0]}?" if near else None
            raise UsageError(f"Margin {name!r} is unknown; expected one of {', '.join(names)}.", hint=hint)
    margins = dataclasses.replace(base, **overrides)
    try:
        margins.validated()
    except VerifyError as error:
        raise UsageError(error.message, hint=error.hint) from error
    return margins
