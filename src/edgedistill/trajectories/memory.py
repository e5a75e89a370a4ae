"""How many trajectories fit in memory at a time, computed before the first one starts.

Where all of them do not fit, fewer are decoded at a time and the others wait: each is the same whatever the number, so
that the vote stays the one that was asked for, and only time is lost. Fewer trajectories would be another, weaker vote.
The cache keeps the type that the bundle was exported with, so its rows are as small as that makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgedistill.errors import BudgetError, ContextLengthError
from edgedistill.runtime.session import DecoderSession
from edgedistill.runtime.state import with_copies
from edgedistill.system.cgroup import available_memory
from edgedistill.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.runtime.model import Model

_SHARE = 0.9
"""Of the memory that is free now: the rest is for everybody else."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What K trajectories would take, and what they get.

    Attributes:
        rows: Rows of the batch that they are decoded on, beside the prompt's own sequence; at least 2, even for one
            trajectory. 1: there is room for a single sequence, and they are decoded on it one after the other.
        row_bytes: Keys and values of one at its longest, and its logits.
        budget_bytes: What all of them may take together.
        pass_tokens: Longest context of a further pass, which begins when the rows are gone.
        source: Where the budget comes from, for a sentence: "of the memory that is free".
        note: A sentence where fewer are decoded at a time than were asked for; empty otherwise.
    """

    rows: int
    row_bytes: int
    budget_bytes: int
    pass_tokens: int
    source: str
    note: str = ""


def plan_run(model: Model, prompt_tokens: int, count: int, max_new_tokens: int, *, held: int) -> MemoryPlan:
    """What fits the memory for ``count`` trajectories of a bundle; see ``plan_memory``.

    Raises:
        ContextLengthError: The prompt leaves no room for an answer.
        BudgetError: Not even one trajectory fits.
    """
    manifest, session = model.bundle.manifest, model.session
    limit = manifest.model.context_length
    if prompt_tokens >= limit:
        raise ContextLengthError(
            f"The prompt has {prompt_tokens} tokens, the context of this bundle holds {limit} with the answer.",
            hint="Shorten the prompt or export with a larger --context.",
        )
    batches = isinstance(session, DecoderSession)
    plan = plan_memory(
        count=count if batches else 1,
        tokens=min(prompt_tokens + max_new_tokens + 1, limit),
        step=session.config.kv_step,
        context=limit,
        bytes_per_token=manifest.kv_cache.bytes_per_token,
        vocab_size=manifest.model.vocab_size,
        profile=manifest.profile,
        predicted=manifest.predicted,
        state_bytes=with_copies(manifest.model.state_bytes),
        held=held,
    )
    if batches:
        return plan
    note = "The graph of this bundle takes one sequence: they are decoded one after the other."
    return replace(plan, rows=1, note=note if count > 1 else plan.note)


def plan_memory(
    *,
    count: int,
    tokens: int,
    step: int,
    context: int,
    bytes_per_token: int,
    vocab_size: int,
    profile: Mapping[str, Any],
    predicted: Mapping[str, Any],
    state_bytes: int = 0,
    held: int = 0,
    available: int | None = None,
) -> MemoryPlan:
    """Rows for ``count`` trajectories.

    Args:
        count: Trajectories asked for.
        tokens: Prompt and longest continuation together, at most ``context``.
        step: Tokens that a cache grows by at a time.
        context: Most tokens of a sequence.
        bytes_per_token: Of the KV cache as it is stored, all layers.
        vocab_size: Logits of a row.
        profile: The bundle's; ``target.ram_gb`` bounds the memory of the whole process.
        predicted: The bundle's predicted sizes (``Budget.to_dict``); what is no KV cache in them is taken off.
        state_bytes: Of a sequence's recurrent states, copies included.
        held: Bytes that the prompt's own sequence has allocated already, for earlier prompts.
        available: Bytes that can still be allocated; default: asked of the system.

    Raises:
        BudgetError: Not even one fits.
    """
    logits = 16 * vocab_size
    fixed_bytes = logits + state_bytes
    row = min(-(-tokens // step) * step, context) * bytes_per_token + fixed_bytes
    free = int(_SHARE * (available_memory() if available is None else available))
    limits = {"of the memory that is free": free + held}
    target = profile.get("target", {}).get("ram_gb")
    if target and predicted.get("ram_bytes"):
        parts = ("weights_reclaimable", "kv_bytes", "activation_bytes", "weights_opening")
        reclaimable, kv, activations, opening = (int(predicted.get(part, 0)) for part in parts)
        fixed = int(predicted["ram_bytes"]) - reclaimable - max(opening, kv + activations) + activations
        limits[f"of the {float(target):g} GB of profile {profile.get('name', '')}"] = int(float(target) * 1e9) - fixed
    source, budget = min(limits.items(), key=lambda item: item[1])
    if budget < row:
        raise BudgetError(
            f"A trajectory of up to {tokens} tokens takes {format_bytes(row)} of KV cache; "
            f"{format_bytes(max(0, budget))} {source} are left.",
            hint="Lower --max-new-tokens, shorten the prompt, or export with --kv-cache int8.",
        )
    wanted = max(2, count)
    # One sequence holds the prompt, and a batch has two rows or more.
    rows = max(1, min(wanted, (budget - max(row, held)) // row))
    longest = min(context, (budget - fixed_bytes) // bytes_per_token)
    if rows >= wanted or count == 1:
        return MemoryPlan(rows, row, budget, longest, source)
    together = f"{rows} are decoded at a time" if rows > 1 else "they are decoded one after the other"
    note = (
        f"{count} trajectories of up to {tokens} tokens would take {format_bytes((count + 1) * row)} of KV cache, "
        f"{format_bytes(budget)} {source} are left: {together}. All {count} are made and vote. "
        "A lower --max-new-tokens, or an export with --kv-cache int8, allows more at a time."
    )
    return MemoryPlan(rows, row, budget, longest, source, note)
