"""Options and result of a tuning, as plain data; the result as a section of the model card."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgedistill import notebook
from edgedistill.errors import UsageError
from edgedistill.json_codec import Record
from edgedistill.units import format_seconds

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.bundle.manifest import Manifest

DEFAULT_STEPS = 300
STATE_CHUNK = 64
"""Tokens whose outputs a layer with a state computes together."""


@dataclass(frozen=True, slots=True)
class TuneOptions(Record):
    """Settings of a tuning; equal settings on equal inputs give equal bytes on the same machine.

    Attributes:
        steps: Updates; None: as many as ``minutes`` allows, or ``DEFAULT_STEPS``.
        minutes: Time for the updates. The number of steps is fixed after the first ones were timed.
        learning_rate: Relative step of a scale (its logarithm is what is trained).
        norm_rate: Step of a norm weight or bias in units of the vector's root mean square.
        zero_point_rate: Step of a zero point in codes (they are rounded, with straight-through gradients); 0: fixed.
        on_policy: Share of the updates on the quantized model's own replies, with the reverse divergence.
        redraw: Updates after which those replies are drawn again.
        batch_tokens: Most tokens of an update, padding included (a single longer sequence is taken as it is).
        sequences, length: Traces that the reference generates: about ``sequences * length`` tokens.
        seed: Prompts and noise of the traces, order of the batches.
        warm_up: Share of the steps in which the learning rate rises; it then falls to 0 along half a cosine.
        clip: Largest norm of the gradient.
        evaluate_every: Updates between looks at the held-out traces.
        patience: Looks without improvement after which it ends early.
        held_out: Share of the traces that is never trained on.
    """

    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 3e-3
    norm_rate: float = 3e-3
    zero_point_rate: float = 0.0
    on_policy: float = 0.0
    redraw: int = 100
    batch_tokens: int = 1024
    sequences: int = 64
    length: int = 512
    seed: int = 0
    warm_up: float = 0.05
    clip: float = 1.0
    evaluate_every: int = 25
    patience: int = 6
    held_out: float = 0.1

    def __post_init__(self) -> None:
        """Raises UsageError for a setting out of its range."""
        if self.steps is not None and self.minutes is not None:
            raise UsageError("--steps and --minutes exclude each other.", hint="Drop one of the two.")
        ranges = {
            "steps": (1, math.inf), "learning_rate": (0, 1), "norm_rate": (0, 1), "zero_point_rate": (0, 1),
            "on_policy": (0, 1), "redraw": (1, math.inf), "batch_tokens": (16, math.inf), "sequences": (4, math.inf),
            "length": (32, math.inf), "evaluate_every": (1, math.inf), "patience": (1, math.inf), "warm_up": (0, 1),
            "minutes": (0.01, math.inf),
        }  # fmt: skip
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                limit = f"at least {low}" if high == math.inf else f"{low} to {high}"
                raise UsageError(f"{name.replace('_', ' ')} is {value}; expected {limit}.")
        if self.learning_rate == self.norm_rate == self.zero_point_rate == 0:
            raise UsageError("Every learning rate is 0, so nothing would be trained.", hint="Leave one at its default.")


@dataclass(frozen=True, slots=True)
class Look:
    """A look at the held-out traces in mid-training: after ``step`` updates, mean KL in nats, in PyTorch."""

    step: int
    kl: float


@dataclass(frozen=True, slots=True)
class Deployed(Record):
    """Divergence of a bundle from the reference on held-out traces, in the kernels that it is deployed with.

    ``kl`` is the mean of KL(reference || bundle) in nats with its 95 % interval over traces, ``top_agreement`` the
    share of positions with the same most likely token.
    """

    kl: float
    low: float
    high: float
    p99: float
    top_agreement: float
    positions: int


@dataclass(frozen=True, slots=True)
class TuneResult(Record):
    """What a tuning made.

    ``changed`` names the arrays of weights.bin that differ, ``seconds`` is the time of training over all runs that the
    tuning was interrupted into, ``reason`` why it ended (``steps`` or ``early stop``).
    """

    DERIVED = ("changed_arrays",)
    HIDDEN = ("manifest", "changed")

    path: Path
    manifest: Manifest
    before: Deployed
    after: Deployed
    steps: int
    best_step: int
    tokens: int
    seconds: float
    reason: str
    changed: tuple[str, ...]
    looks: tuple[Look, ...] = field(default_factory=tuple)

    @property
    def changed_arrays(self) -> int:
        """How many arrays differ."""
        return len(self.changed)

    def gains(self) -> list[tuple[str, str, str]]:
        """Rows of text: a measure on held-out traces, before and after."""
        before, after = self.before, self.after
        return [
            ("mean KL [nats]", f"{before.kl:.4f} [{before.low:.4f}, {before.high:.4f}]",
             f"{after.kl:.4f} [{after.low:.4f}, {after.high:.4f}]"),
            ("p99 KL [nats]", f"{before.p99:.3f}", f"{after.p99:.3f}"),
            ("top-1 agreement", f"{100 * before.top_agreement:.1f} %", f"{100 * after.top_agreement:.1f} %"),
        ]  # fmt: skip

    def _repr_html_(self) -> str:
        steps = f"{self.path}: {self.steps} steps, {format_seconds(self.seconds)}, best at step {self.best_step}"
        return notebook.text(steps) + notebook.table(("held-out traces", "before", "after"), self.gains())


_REPLACED = ("## Short verification", "## Tuning")


def with_tuning(text: str, told: TuneResult) -> str:
    """``text`` with a section on the tuning instead of those that were about other weights."""
    kept: list[str] = []
    skipping = False
    for line in text.splitlines():
        if line.startswith("## "):
            skipping = line.strip() in _REPLACED
        if not skipping:
            kept.append(line)
    before, after = told.before, told.after
    section = (
        f"Scales and norms were trained towards the original in {told.best_step} steps. Mean KL(original || bundle) on "
        f"held-out traces, {after.positions} positions, in the deployed kernels: {before.kl:.4f} nats before, "
        f"{after.kl:.4f} after; top-1 agreement {100 * before.top_agreement:.1f} % before, "
        f"{100 * after.top_agreement:.1f} % after."
    )
    return "\n".join([*kept, ""]).rstrip() + f"\n\n## Tuning\n\n{section}\n"
