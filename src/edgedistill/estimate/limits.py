"""Checks a predicted bundle against the limits of profile and machine, and says what would fit if it does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgedistill.errors import BudgetError
from edgedistill.estimate.memory import predict_profile
from edgedistill.quantize.plan import parse_format

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edgedistill.estimate.memory import Budget, ModelLike
    from edgedistill.profile.profile import Profile
    from edgedistill.quantize.plan import Plannable

GB = 10**9
DISK_RESERVE = 64 * 1024 * 1024
"""Left free on the output file system, so that an export never fills it to the last byte."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A change of options (``--block-size 128``) and what it would lead to."""

    option: str
    budget: Budget


def check(
    model: ModelLike, weights: Sequence[Plannable], profile: Profile, *, others: Iterable[Profile] = ()
) -> Budget:
    """The budget of the export, if it keeps to the limits of ``profile.target``.

    Args:
        model: Dimensions of the model.
        weights: All its weights.
        profile: The profile with the command line's overrides applied.
        others: Further profiles that a message may recommend.

    Raises:
        BudgetError: Disk or memory would exceed the profile's; names what would fit, found by trying.
    """
    budget = predict_profile(model, weights, profile)
    ram, disk = profile.target.ram_gb * GB, profile.target.disk_gb * GB
    excess = []
    if budget.file_bytes > disk:
        excess.append(f"{_gb(budget.file_bytes)} on disk (profile {profile.name} allows {_gb(disk)})")
    if budget.needed_bytes > ram:
        when = f"at {budget.context_length} tokens, {_gb(budget.kv_bytes)} of it KV cache"
        if budget.needed_bytes == budget.opening_bytes:
            when = "while it opens, in which codes and scales are widened"
        excess.append(f"{_gb(budget.needed_bytes)} of memory {when} (profile {profile.name} allows {_gb(ram)})")
    if not excess:
        return budget
    label = profile.weights.default.label()
    fitting = list(alternatives(model, weights, profile, others))
    raise BudgetError(f"In {label} the bundle would take {' and '.join(excess)}.", hint=_advice(fitting))


def alternatives(
    model: ModelLike, weights: Sequence[Plannable], profile: Profile, others: Iterable[Profile] = ()
) -> Iterator[Alternative]:
    """Changes of one option at a time that fit, least damage to the model first.

    Shorter contexts, then keys and values in 8 bits, then larger blocks, then fewer bits keep to the limits of
    ``profile``, singly or, where no single one is enough, one of the others with a shorter context; each of ``others``
    for the same family of processors, and for the same or any names of them, is taken as it is, with its own limits,
    the smallest machine first.
    """
    others_than_context = [*_caches(profile), *_formats_of(profile)]
    variants = [*_contexts(profile), *others_than_context]
    fitting = list(_fitting(model, weights, variants))
    if not fitting:
        pairs = [
            (f"{first} {second}", changed)
            for first, another in others_than_context
            for second, changed in _contexts(another)
        ]
        fitting = list(_fitting(model, weights, pairs))[:1]
    yield from fitting
    for other in sorted(others, key=lambda known: known.target.machine_ram_gb):
        if other.name != profile.name and _same_machines(other, profile) and not other.weights.default.is_float:
            budget = predict_profile(model, weights, other)
            if fits(budget, other):
                option = f"--profile {other.name} (for machines with {other.target.machine_ram_gb:g} GB)"
                yield Alternative(option, budget)


def fits(budget: Budget, profile: Profile) -> bool:
    """Whether ``budget`` keeps to the limits of the target of ``profile``."""
    return budget.needed_bytes <= profile.target.ram_gb * GB and budget.file_bytes <= profile.target.disk_gb * GB


def check_machine(budget: Budget, *, free_disk: int, available_ram: int | None = None) -> None:
    """Whether this machine can write the bundle and, if ``available_ram`` is given, open it for its check.

    Args:
        budget: What was predicted; of the memory, what opening takes.
        free_disk: Free bytes on the file system of the output.
        available_ram: Bytes that can still be allocated; None skips that check (``--no-check``).

    Raises:
        BudgetError: Too little of either; says how much is missing.
    """
    needed = budget.file_bytes + DISK_RESERVE
    if needed > free_disk:
        raise BudgetError(
            f"The bundle needs {_gb(needed)} of disk; {_gb(free_disk)} are free where it would be written.",
            hint=f"Free {_gb(needed - free_disk)}, or choose another place with -o.",
        )
    if available_ram is not None and budget.opening_bytes > available_ram:
        needs, has = _gb(budget.opening_bytes), _gb(available_ram)
        raise BudgetError(
            f"Opening the bundle for its check needs {needs} of memory; {has} are available.",
            hint="Close other programs, or export with --no-check.",
        )


def _same_machines(other: Profile, profile: Profile) -> bool:
    return _is_x86(other) == _is_x86(profile) and other.target.cpu in ((), profile.target.cpu)


def _is_x86(profile: Profile) -> bool:
    return any(flag.startswith(("avx", "amx")) for flag in profile.target.isa)


def _fitting(
    model: ModelLike, weights: Sequence[Plannable], variants: Iterable[tuple[str, Profile]]
) -> Iterator[Alternative]:
    for option, changed in variants:
        budget = predict_profile(model, weights, changed)
        if fits(budget, changed):
            yield Alternative(option, budget)


def _contexts(profile: Profile) -> Iterator[tuple[str, Profile]]:
    length = profile.context.length
    while (length := length // 2) >= 512:
        yield f"--context {length}", profile.with_overrides(context_length=length)


def _caches(profile: Profile) -> Iterator[tuple[str, Profile]]:
    if not profile.kv_cache.is_quantized:
        yield "--kv-cache int8", profile.with_overrides(kv_cache="int8")


def _formats_of(profile: Profile) -> Iterator[tuple[str, Profile]]:
    formats = [profile.weights.default, *(rule.format for rule in profile.weights.rules)]
    quantized = [fmt.block_size for fmt in formats if not fmt.is_float]
    for size in (64, 128, 256):
        if quantized and size > max(quantized):
            yield f"--block-size {size}", profile.with_overrides(block_size=size)
    for text in ("int8", "int4", "int4-b128"):
        fmt = parse_format(text)
        if any(fmt.bits < known.bits for known in formats):
            yield f"--format {text}", profile.with_overrides(weight_format=fmt)


def _advice(fitting: Sequence[Alternative]) -> str:
    if not fitting:
        return "No KV cache, block size, format, context length or known profile makes it fit: choose a smaller model."
    seen: set[str] = set()
    chosen: list[str] = []
    for alternative in fitting:  # the first of each kind of option is the mildest
        kind = alternative.option.split(maxsplit=1)[0]
        if kind not in seen:
            seen.add(kind)
            chosen.append(f"{alternative.option}: {_gb(alternative.budget.needed_bytes)} of memory")
    return "What would fit: " + "; ".join(chosen) + "."


def _gb(size: float) -> str:
    return f"{size / GB:.2f} GB" if size >= GB / 10 else f"{size / 1e6:.1f} MB"
