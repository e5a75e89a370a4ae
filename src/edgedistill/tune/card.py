"""The model card's section on tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedistill.tune.options import TuneResult

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
