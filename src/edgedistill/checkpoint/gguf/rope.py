"""RoPE scaling of a GGUF file as Hugging Face's ``rope_scaling``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgedistill.checkpoint.gguf.header import Keys

_FREQUENCIES, _SHORT, _LONG = "rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"
ROPE_FACTORS = (_FREQUENCIES, _SHORT, _LONG)
"""Tensors by which frequencies are divided: always, or (LongRoPE) below and above the original context length."""
_HINT = "Export from the original Hugging Face checkpoint."
# Original context length, low and high frequency factor of all Llama 3.x models; GGUF files do not state them.
_LLAMA3_SHAPES = ((8192, 1.0, 4.0),)


def rope_scaling(keys: Keys, tensors: Mapping[str, npt.NDArray[np.float32]], rotated: int) -> dict[str, Any] | None:
    """``rope_scaling`` of config.json, None without scaling.

    Args:
        keys: The metadata.
        tensors: Content of the tensors ``ROPE_FACTORS`` that there are, float32 [rotated/2] each.
        rotated: Elements of a head that are rotated.

    Raises CheckpointError for malformed factors or metadata, UnsupportedModelError for kinds that are not known.
    """
    kind = keys.text("rope.scaling.type", "none")
    if _SHORT in tensors or _LONG in tensors:
        return _long(keys, tensors, rotated)
    if _FREQUENCIES in tensors:
        if kind not in ("none", "linear"):
            raise UnsupportedModelError(f"RoPE frequency factors together with scaling {kind!r} are not known.")
        return _from_factors(tensors[_FREQUENCIES], keys.real("rope.freq_base", 10000.0), rotated)
    factor = keys.real("rope.scaling.factor", 0.0) or keys.real("rope.scale_linear", 0.0)
    if kind in ("none", "linear"):
        return {"rope_type": "linear", "factor": factor} if factor not in (0.0, 1.0) else None
    if kind != "yarn":
        raise UnsupportedModelError(
            f"The GGUF model scales RoPE by {kind!r}; expected none, linear, yarn or llama3.", hint=_HINT
        )
    scaling: dict[str, Any] = {"rope_type": "yarn", "factor": factor}
    if original := keys.integer("rope.scaling.original_context_length", 0):
        scaling["original_max_position_embeddings"] = original
    if factor_all := keys.real("rope.scaling.yarn_log_multiplier", 0.0):
        scaling |= {"mscale": factor_all, "mscale_all_dim": factor_all}
    for key, name in (
        ("rope.scaling.yarn_attn_factor", "attention_factor"),
        ("rope.scaling.yarn_beta_fast", "beta_fast"),
        ("rope.scaling.yarn_beta_slow", "beta_slow"),
    ):
        if value := keys.real(key, 0.0):
            scaling[name] = value
    return scaling


def _long(keys: Keys, tensors: Mapping[str, npt.NDArray[np.float32]], rotated: int) -> dict[str, Any]:
    """LongRoPE (Phi 3): two sets of factors, and a factor on cos and sin."""
    for name in (_SHORT, _LONG):
        if name not in tensors:
            raise CheckpointError(f"The GGUF file has factors of LongRoPE, but no {name}.", hint="Download it again.")
        _check_factors(name, tensors[name], rotated)
    return {
        "rope_type": "longrope",
        "short_factor": [float(value) for value in tensors[_SHORT]],
        "long_factor": [float(value) for value in tensors[_LONG]],
        "attention_factor": keys.real("rope.scaling.attn_factor", 1.0),
    }


def _check_factors(name: str, factors: npt.NDArray[np.float32], rotated: int) -> None:
    if factors.shape != (rotated // 2,) or not (factors > 0).all():
        raise CheckpointError(f"{name} has shape {list(factors.shape)}, expected {rotated // 2} positive values.")


def _from_factors(factors: npt.NDArray[np.float32], theta: float, head_dim: int) -> dict[str, Any] | None:
    """The scaling that gives ``factors`` (float32 [head_dim/2]): none, Llama 3's, or else the factors themselves."""
    _check_factors(_FREQUENCIES, factors, head_dim)
    if (factors == 1).all():
        return None
    factor = round(float(factors.max()), 4)
    for original, low, high in _LLAMA3_SHAPES:
        if np.allclose(_llama3_factors(theta, head_dim, factor, original, low, high), factors, rtol=1e-4):
            return {
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low,
                "high_freq_factor": high,
                "original_max_position_embeddings": original,
            }
    return {"rope_type": "freq_factors", "freq_factors": [float(value) for value in factors]}


def _llama3_factors(
    theta: float, head_dim: int, factor: float, original: int, low: float, high: float
) -> npt.NDArray[np.float64]:
    """Divisors of the RoPE frequencies in Llama 3.1 (transformers, modeling_rope_utils.py)."""
    wavelength = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    smooth = np.clip((original / wavelength - low) / (high - low), 0.0, 1.0)
    result: npt.NDArray[np.float64] = 1 / ((1 - smooth) / factor + smooth)
    return result
