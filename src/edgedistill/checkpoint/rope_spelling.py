"""RoPE parameters as transformers 5 writes them, in the keys that transformers 4 reads.

transformers 4 ignores ``rope_parameters`` silently and computes a different model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedistill.checkpoint.config_values import mapping
from edgedistill.errors import UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

LOCAL_BASE = "rope_local_base_freq"


def readable_rope(config: Mapping[str, Any], known: Any) -> dict[str, Any]:
    """``config`` with its RoPE parameters under keys that the installed transformers reads.

    Args:
        config: Content of config.json.
        known: Names of the keys that the config class of the model's type has.

    Raises:
        UnsupportedModelError: Other parameters for each kind of layer, which the class has no keys for.
    """
    values = dict(config)
    if "rope_parameters" not in values or "rope_parameters" in known:
        return values
    params = mapping(values, "rope_parameters")
    del values["rope_parameters"]
    nested = {name: part for name, part in params.items() if isinstance(part, dict)}
    if not nested:
        return values | _older(params)
    full, sliding = nested.get("full_attention", {}), nested.get("sliding_attention", {})
    plain = set(nested) <= {"full_attention", "sliding_attention"} and sliding.get("rope_type", "default") == "default"
    if LOCAL_BASE in known and plain:
        return values | _older(full) | {LOCAL_BASE: sliding.get("rope_theta", 10000.0)}
    if plain and sliding.get("rope_theta") == full.get("rope_theta"):
        return values | _older(full)
    raise UnsupportedModelError(
        "The model has different RoPE parameters for each kind of layer, which the installed transformers cannot read.",
        hint="Install a newer transformers.",
    )


def _older(params: Mapping[str, Any]) -> dict[str, Any]:
    """``rope_theta``, ``partial_rotary_factor`` and ``rope_scaling`` of one set of parameters."""
    rest = {key: value for key, value in params.items() if key not in ("rope_theta", "partial_rotary_factor")}
    older = {key: params[key] for key in ("rope_theta", "partial_rotary_factor") if key in params}
    plain = rest.get("rope_type", "default") == "default"
    return older | {"rope_scaling": None if plain else rest}
