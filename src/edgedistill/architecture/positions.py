"""Where the tokens of each layer look and how it knows their positions: sliding windows and RoPE, by a config's keys.

Both spellings of the RoPE parameters are read: ``rope_theta`` with ``rope_scaling`` (transformers 4) and
``rope_parameters`` (transformers 5).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedistill.architecture.rope import stated_rope
from edgedistill.architecture.spec import QueryScaling
from edgedistill.checkpoint.config_values import integer, mapping, number, per_layer
from edgedistill.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.architecture.family import Family

_COMPARE = "Compare config.json with the original model's."


def rotated_layers(config: Mapping[str, Any], family: Family, windows: tuple[int | None, ...]) -> tuple[bool, ...]:
    """Whether each layer has RoPE."""
    count = len(windows)
    if family.no_rope in ("unless_stated", "stated"):
        default = "rope" if family.no_rope == "stated" else None
        return (config.get("position_embedding_type", default) == "rope",) * count
    if family.no_rope == "interval":
        return _rotated_by_interval(config, count)
    if family.no_rope == "full_layers" and (family.parallel or config.get("sliding_window", 0) is not None):
        return tuple(window is not None for window in windows)
    return (True,) * count  # EXAONE 4 without windows, too


def _rotated_by_interval(config: Mapping[str, Any], count: int) -> tuple[bool, ...]:
    listed = per_layer(config, "no_rope_layers", count)
    if listed is not None:
        return tuple(bool(value) for value in listed)
    interval = integer(config, "no_rope_layer_interval", 4)
    return tuple((index + 1) % interval != 0 for index in range(count))


def partial_rotation(config: Mapping[str, Any], params: Mapping[str, Any], family: Family) -> float:
    """Share of each head that is rotated: of the RoPE parameters (transformers 5), the config, or the family.

    Other families ignore the key in transformers 5 and fail with it in transformers 4, so no share is right there.
    """
    key = "partial_rotary_factor"
    partial = number(params, key, number(config, key, family.partial_rotary or 1.0))
    if partial != 1.0 and family.partial_rotary is None and params.get("rope_type") != "proportional":
        raise UnsupportedModelError(
            f"The RoPE of this {config['model_type']} model has {key} = {partial:g}; models of this type rotate whole "
            "heads, and transformers ignores the key or fails, depending on its version.",
            hint=f"Remove {key} from config.json if the model was trained on whole heads.",
        )
    return partial


def rope_parameters(config: Mapping[str, Any], family: Family) -> dict[str, tuple[Mapping[str, Any], float]]:
    """RoPE parameters and base by layer type; ``sliding_attention`` only where it differs from the full layers'."""
    theta = number(config, "rope_theta", family.rope_theta)
    params = stated_rope(config, family.rope_theta)
    if params.get("alpha") and not family.rope_alpha:
        raise UnsupportedModelError(
            f"The RoPE of this {config['model_type']} model has an alpha; only Hunyuan's has one.",
            hint=_COMPARE,
        )
    local = number(config, "rope_local_base_freq", 10000.0) if family.sliding_rope == "local_base" else theta
    if family.interleaved_rope and params.get("rope_type") == "proportional":
        raise UnsupportedModelError(
            f"The RoPE of this {config['model_type']} model is proportional, and its rotary pairs are neighbours; that "
            "is not supported.",
            hint=_COMPARE,
        )
    nested = {"full_attention", "sliding_attention"} & set(params)
    _require_form(config, family, params, nested=bool(nested))
    if nested:
        full, sliding = mapping(params, "full_attention"), mapping(params, "sliding_attention")
        return {"full_attention": (full, theta), "sliding_attention": (sliding, local)}
    if family.sliding_rope == "same":
        return {"full_attention": (params, theta)}
    # A base given inside the parameters (transformers 5) is that of OLMo 3's sliding layers too.
    base = number(params, "rope_theta", theta) if family.sliding_rope == "unscaled" else local
    return {"full_attention": (params, theta), "sliding_attention": ({}, base)}


def _require_form(config: Mapping[str, Any], family: Family, params: Mapping[str, Any], *, nested: bool) -> None:
    """Refuse RoPE parameters in a form that transformers does not read in a model of this type, or not all of them."""
    newer = bool(config.get("rope_parameters"))
    for_each = newer and (family.sliding_rope != "same" or family.own_sizes)  # the Gemmas since the third, OLMo 3
    # transformers 5 wrote OLMo 3's as one set at first, and passes over it now: no matter where it says the default.
    kind, base = params.get("rope_type", "default"), params.get("rope_theta", family.rope_theta)
    harmless = not nested and family.sliding_rope == "unscaled" and (kind, base) == ("default", family.rope_theta)
    if params and nested != for_each and not harmless:
        key, found = ("rope_scaling", "rope_parameters")[newer], ("as one set", "for each kind of layer")[nested]
        expected = "a set for each kind of layer" if for_each else "one set of them"
        raise UnsupportedModelError(
            f"The {key} of this {config['model_type']} model are stated {found}; {expected} is expected, and "
            "transformers ignores anything else.",
            hint=_COMPARE,
        )
    if family.sliding_rope != "same" and any(
        isinstance(part, dict) and (part.get("truncate") is False or ("type" in part and "rope_type" not in part))
        for part in (params, *params.values())
    ):
        raise UnsupportedModelError(
            f"The RoPE parameters of this {config['model_type']} model have truncate = false, or type instead of "
            "rope_type, which transformers reads or ignores, depending on its version.",
            hint=_COMPARE,
        )


def windows_of(config: Mapping[str, Any], family: Family, count: int) -> tuple[int | None, ...]:
    """Sliding window of each layer, None where attention is full."""
    if family.windows == "none" or config.get("sliding_window", family.sliding_window) is None:
        return (None,) * count
    if family.windows in ("optional", "optional_all") and not config.get("use_sliding_window", False):
        return (None,) * count
    window = integer(config, "sliding_window", family.sliding_window)
    if family.windows in ("all", "optional_all"):
        return (window,) * count
    types = per_layer(config, "layer_types", count)
    if types is None and family.windows == "pattern":
        types = _pattern(config, family, count)
    elif types is None and family.no_rope == "interval":
        rotated = _rotated_by_interval(config, count)
        types = tuple("full_attention" if rotates else "sliding_attention" for rotates in rotated)
    elif types is None:
        # 0 is a sensible value here: every layer has a window.
        first = number(config, "max_window_layers", 28)
        types = tuple("sliding_attention" if i >= first else "full_attention" for i in range(count))
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def _pattern(config: Mapping[str, Any], family: Family, count: int) -> tuple[str, ...]:
    """Types of layers by the distance of the full ones; 0: there is none."""
    pattern = config.get("sliding_window_pattern")
    if isinstance(pattern, str):  # EXAONE 4: one letter a layer, repeated, L for local
        kinds = (pattern * count)[:count]
        return tuple("sliding_attention" if kind == "L" else "full_attention" for kind in kinds)
    every = integer(config, "sliding_window_pattern", family.full_every or None) if pattern or family.full_every else 0
    return tuple("full_attention" if every and (i + 1) % every == 0 else "sliding_attention" for i in range(count))


def query_scaling(config: Mapping[str, Any], family: Family) -> QueryScaling | None:
    """How queries grow with their position (Ministral 3), if they do."""
    params = stated_rope(config, family.rope_theta)
    beta = number(params, "llama_4_scaling_beta", 0.0)
    return QueryScaling(beta, integer(params, "original_max_position_embeddings")) if beta else None
