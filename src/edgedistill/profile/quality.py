"""Named points of the curve of quality against size: recipes of formats by kind of matrix, as data.

``small`` and ``balanced`` are 4 bits with 8 where 4 hurt; ``high`` loses next to nothing but what rounding activations
does. Where a profile's own weights have 4 bits, blocks are no smaller than its own, and whether it has zero points is
kept, since they are chosen for its machines. ``bench/quality.py`` measures all of them; docs/benchmarks.md has the
numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from edgedistill.errors import UsageError
from edgedistill.quantize.plan import Rule, parse_format

if TYPE_CHECKING:
    from edgedistill.profile.profile import Profile
    from edgedistill.quantize.spec import WeightFormat

Quality = Literal["small", "balanced", "high"]
QUALITIES: tuple[Quality, ...] = ("small", "balanced", "high")

_FOUR, _EIGHT = "int4-b32-asym-search-s8", "int8-b64-sym-search-s8"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Format of all matrices but those that ``rules`` name by pattern."""

    default: str
    rules: tuple[tuple[str, str], ...] = ()


RECIPES: dict[str, Recipe] = {
    "small": Recipe(_FOUR, (("lm_head", _EIGHT), ("embed", _EIGHT))),
    "balanced": Recipe(_FOUR, (("lm_head", _EIGHT), ("embed", _EIGHT), ("layers.*.attn.*", _EIGHT))),
    "high": Recipe("int8-b32-sym-search-s8"),
}


def with_quality(profile: Profile, name: str) -> Profile:
    """``profile`` with the recipe ``name`` in place of its default format and rules.

    Raises:
        UsageError: No such recipe.
    """
    recipe = RECIPES.get(name)
    if recipe is None:
        raise UsageError(f"Quality {name!r} is not known; expected one of {', '.join(RECIPES)}.")
    own = profile.weights.default

    def fitted(label: str) -> WeightFormat:
        fmt = parse_format(label)
        if own.is_float or own.bits != 4:
            return fmt
        block = max(fmt.block_size, own.block_size)
        return replace(fmt, block_size=block, symmetric=own.symmetric if fmt.bits == 4 else fmt.symmetric)

    rules = tuple(Rule(match, fitted(label)) for match, label in recipe.rules)
    return replace(profile, weights=replace(profile.weights, default=fitted(recipe.default), rules=rules))
