"""How many trajectories fit the memory at a time, before the first is begun.

Must not know: texts, how anything is decoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgedistill.cgroup import available_memory
from edgedistill.errors import BudgetError
from edgedistill.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

_SHARE = 0.9
"""Of the memory that is free now: the rest is for everybody else."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What K trajectories would take, and what they get.

    Attributes:
        rows: Trajectories decoded at a time.
        row_bytes: Keys and values of one at its longest, and its logits.
        budget_bytes: What all of them may take together.
        note: A sentence where fewer are decoded at a time than were asked for; empty otherwise.
    """

    rows: int
    row_bytes: int
    budget_bytes: int
    note: str = ""


def plan_memory(
    *,
    count: int,
    tokens: int,
    bytes_per_token: int,
    vocab_size: int,
    profile: Mapping[str, Any],
    predicted: Mapping[str, Any],
    available: int | None = None,
) -> MemoryPlan:
    """Rows for ``count`` trajectories.

    Args:
        count: Trajectories asked for.
        tokens: Prompt and longest continuation together, at most the context.
        bytes_per_token: Of the KV cache, all layers.
        vocab_size: Logits of a row.
        profile: The bundle's; ``target.ram_gb`` bounds the memory of the whole process.
        predicted: The bundle's predicted sizes (``Budget.to_dict``); what is no KV cache in them is taken off.
        available: Bytes that can still be allocated; default: asked of the system.

    Raises:
        BudgetError: Not even one fits beside the prompt.
    """
    row = tokens * bytes_per_token + 16 * vocab_size
    free = int(_SHARE * (available_memory() if available is None else available))
    limits = {"of the memory that is free": free}
    target = profile.get("target", {}).get("ram_gb")
    if target and predicted.get("ram_bytes"):
        reclaimable = int(predicted.get("weights_reclaimable", 0))
        fixed = int(predicted["ram_bytes"]) - int(predicted.get("kv_bytes", 0)) - reclaimable
        limits[f"of the {float(target):g} GB of profile {profile.get('name', '')}"] = int(float(target) * 1e9) - fixed
    source, budget = min(limits.items(), key=lambda item: item[1])
    fitting = budget // row - 1  # the prompt's own cache is kept beside the rows
    if fitting < 1:
        raise BudgetError(
            f"A trajectory of up to {tokens} tokens takes {format_bytes(2 * row)} with its prompt; "
            f"{format_bytes(max(0, budget))} {source} are left.",
            hint="Lower --max-new-tokens, shorten the prompt, or export with --kv-cache int8.",
        )
    if fitting >= count:
        return MemoryPlan(count, row, budget)
    together = f"{fitting} are decoded at a time" if fitting > 1 else "they are decoded one after the other"
    note = (
        f"{count} trajectories of up to {tokens} tokens would take {format_bytes((count + 1) * row)} of KV cache, "
        f"{format_bytes(budget)} {source} are left: {together}. "
        "A lower --max-new-tokens, or an export with --kv-cache int8, allows more."
    )
    return MemoryPlan(fitting, row, budget, note)
