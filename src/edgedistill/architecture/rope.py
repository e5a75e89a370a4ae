"""Rotary position embedding: a config's RoPE parameters to inverse frequencies (tables: ``graph.rope``).

The formulas are those of transformers ``modeling_rope_utils.py`` (``ROPE_INIT_FUNCTIONS``): linear position
interpolation, llama3 (Llama 3.1's wavelength-dependent interpolation) and YaRN (Peng et al. 2023, arXiv:2309.00071).
``freq_factors`` is llama.cpp's form, a list of divisors of the inverse frequencies stored in a GGUF file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.architecture.spec import RopeSpec
from edgedistill.checkpoint.config_values import mapping, number
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from edgedistill.architecture.spec import ModelSpec

    Floats = npt.NDArray[np.float32]


_PROPORTIONAL = "proportional"
_ORIGINAL = "original_max_position_embeddings"


def rope_spec(
    params: Mapping[str, Any],
    *,
    head_dim: int,
    theta: float,
    max_position_embeddings: int,
    partial: float = 1.0,
    original_length: object = None,
) -> RopeSpec:
    """Inverse frequencies of one RoPE, head_dim/2 of them: 0 behind those of the part that is rotated.

    Args:
        params: ``rope_scaling`` (transformers 4) or ``rope_parameters`` (transformers 5), possibly empty. A
            ``rope_theta`` inside it wins over ``theta``. The kind is ``rope_type`` (or the older ``type``).
        head_dim: Elements of a head. ``partial``: the share of them that is rotated.
        theta: Base of the frequencies if ``params`` names none.
        max_position_embeddings: Training length if ``params`` has no ``original_max_position_embeddings`` (YaRN).
        original_length: ``original_max_position_embeddings`` of the config itself (Phi 3), which comes before that;
            transformers 4 and 5 disagree where ``params`` has another one.

    Raises:
        UnsupportedModelError: An unknown kind.
        CheckpointError: A parameter of the kind is missing or no number, or there are two original lengths.
    """
    kind = str(params.get("rope_type") or params.get("type") or "default")
    if kind not in _KINDS:
        raise UnsupportedModelError(
            f"The model uses the RoPE kind '{kind}'; expected one of {', '.join(_KINDS)}.",
            hint="Try --exporter optimum.",
        )
    base = number(params, "rope_theta", theta)
    if not (math.isfinite(base) and base > 0):
        raise CheckpointError(
            f"config.json has rope_theta = {base}; a positive number is expected.",
            hint="Compare config.json with the original model's.",
        )
    rotated = int(head_dim * partial)
    if not 0 < rotated <= head_dim or rotated % 2:
        raise CheckpointError(
            f"config.json has partial_rotary_factor = {partial} for heads of {head_dim} elements; an even number of "
            "them has to be rotated.",
            hint="Compare config.json with the original model's.",
        )
    # Proportional: the frequencies of the whole head, of which the lowest are left out.
    of = head_dim if kind == _PROPORTIONAL else rotated
    exponents = np.arange(0, rotated, 2, dtype=np.float32) / np.float32(of)
    # The power in float64: NumPy's in float32 is off by an ulp for many frequencies, torch's hardly ever.
    pos_freqs = (np.float64(base) ** exponents.astype(np.float64)).astype(np.float32)
    values = dict(params)
    if original_length is not None and values.setdefault(_ORIGINAL, original_length) != original_length:
        raise CheckpointError(
            f"config.json has {_ORIGINAL} = {original_length!r:.40} "
            f"and {values[_ORIGINAL]!r:.40} in its RoPE parameters.",
            hint="Compare config.json with the original model's.",
        )
    known = _Parameters(values, pos_freqs, base, max_position_embeddings)
    unusable = CheckpointError(
        f"The RoPE parameters of config.json ({kind}) give frequencies that are not finite.",
        hint="Compare config.json with the original model's.",
    )
    try:
        with np.errstate(all="ignore"):
            inv_freq, attention_scaling = _KINDS[kind](known)
    except (ArithmeticError, ValueError) as error:  # the logarithm of a number below 0, and the like
        raise unusable from error

    def padded(frequencies: Floats) -> tuple[float, ...]:
        if not (np.isfinite(frequencies).all() and math.isfinite(attention_scaling)):
            raise unusable
        return tuple(float(f) for f in np.pad(frequencies.astype(np.float32), (0, (head_dim - rotated) // 2)))

    if kind not in ("longrope", "su"):
        return RopeSpec(padded(inv_freq), attention_scaling, kind)
    with np.errstate(all="ignore"):
        longer = known.scaled_by("long_factor")
    return RopeSpec(padded(inv_freq), attention_scaling, kind, padded(longer), int(known.original_length))


def stated_rope(config: Mapping[str, Any], theta: float) -> Mapping[str, Any]:
    """The RoPE parameters of a config, under ``rope_parameters`` (transformers 5) or ``rope_scaling`` (4); ``theta``:
    the family's base.

    Raises CheckpointError where both are there and differ: transformers 5 then takes ``rope_scaling`` and the family's
    base, transformers 4 ``rope_scaling`` and the config's.
    """
    newer, older = mapping(config, "rope_parameters"), mapping(config, "rope_scaling")
    if newer and older:
        base = config.get("rope_theta", theta)
        one, other = (
            {"rope_type": part.get("type"), "rope_theta": base, **part, "type": None} for part in (newer, older)
        )
        if one != other:
            raise CheckpointError(
                "config.json has rope_parameters and rope_scaling, which differ; one of them is expected.",
                hint="Write into rope_parameters what the model was trained with, and remove rope_scaling.",
            )
    return newer or older


def rotates_whole_heads(rope: RopeSpec) -> bool:
    """Whether element i of a head is a pair with element i + head_dim/2, even where a part is not rotated."""
    return rope.kind == _PROPORTIONAL


def rotated_elements(rope: RopeSpec) -> int:
    """Elements of a head that are rotated; the others have frequency 0."""
    return 2 * sum(1 for frequency in rope.inv_freq if frequency)


def distinct_ropes(spec: ModelSpec) -> dict[RopeSpec, int]:
    """Every RoPE that some layer uses, numbered in order of first use."""
    ropes = dict.fromkeys(layer.rope for layer in spec.layers if layer.rope is not None)
    return {rope: index for index, rope in enumerate(ropes)}


@dataclass(frozen=True, slots=True)
class _Parameters:
    """What a formula may use: the config's values, base^(2i/dim) float32 [dim/2], the base and the training length."""

    values: Mapping[str, Any]
    pos_freqs: Floats
    base: float
    length: int

    def number(self, key: str, default: float | None = None) -> float:
        return number(self.values, key, default)

    @property
    def inv_freq(self) -> Floats:
        return np.float32(1.0) / self.pos_freqs

    @property
    def original_length(self) -> float:
        return self.number("original_max_position_embeddings", self.length)

    def scaled_by(self, key: str) -> Floats:
        """Inverse frequencies divided by the factors of ``key``, one for each; raises CheckpointError."""
        factors = self.values.get(key)
        listed = factors if isinstance(factors, list | tuple) else ()
        array = np.array([x for x in listed if isinstance(x, int | float) and x > 0], dtype=np.float32)
        if array.shape != self.pos_freqs.shape:
            raise CheckpointError(
                f"The model has {array.size} positive RoPE factors in {key}; its heads need {self.pos_freqs.size}.",
                hint="Compare config.json with the original model's.",
            )
        return np.float32(1.0) / (array * self.pos_freqs)


def _default(p: _Parameters) -> tuple[Floats, float]:
    return p.inv_freq, 1.0


def _linear(p: _Parameters) -> tuple[Floats, float]:
    return p.inv_freq / np.float32(p.number("factor")), 1.0


def _llama3(p: _Parameters) -> tuple[Floats, float]:
    factor, low, high = p.number("factor"), p.number("low_freq_factor"), p.number("high_freq_factor")
    old_length = p.number("original_max_position_embeddings")
    wavelength = 2 * math.pi / p.inv_freq
    smooth = (old_length / wavelength - low) / (high - low)
    medium = (1 - smooth) * p.inv_freq / factor + smooth * p.inv_freq
    scaled = np.where(wavelength > old_length / low, p.inv_freq / factor, medium)
    return np.where(wavelength < old_length / high, p.inv_freq, scaled).astype(np.float32), 1.0


def _yarn(p: _Parameters) -> tuple[Floats, float]:
    factor = p.number("factor")
    old_length = p.number("original_max_position_embeddings", p.length)
    dim = 2 * len(p.pos_freqs)

    def correction_dim(rotations: float) -> float:
        return dim * math.log(old_length / (rotations * 2 * math.pi)) / (2 * math.log(p.base))

    low = correction_dim(p.number("beta_fast", 32))
    high = correction_dim(p.number("beta_slow", 1))
    if p.values.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # as transformers does, against a division by zero
    ramp = np.clip((np.arange(dim // 2, dtype=np.float32) - low) / (high - low), 0, 1)
    # In transformers' order of operations, whose rounding long positions multiply.
    interpolated = np.float32(1.0) / (np.float32(factor) * p.pos_freqs)
    kept = 1 - ramp
    inv_freq = interpolated * (1 - kept) + p.inv_freq * kept
    return inv_freq.astype(np.float32), _yarn_attention_factor(p, factor)


def _yarn_attention_factor(p: _Parameters, factor: float) -> float:
    """The factor on cos and sin: given, or from mscale and mscale_all_dim (DeepSeek), or 0.1 ln(factor) + 1."""
    if p.values.get("attention_factor") is not None:
        return p.number("attention_factor")

    def mscale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    if p.values.get("mscale") and p.values.get("mscale_all_dim"):
        return mscale(p.number("mscale")) / mscale(p.number("mscale_all_dim"))
    return mscale(1.0)


def _freq_factors(p: _Parameters) -> tuple[Floats, float]:
    return p.scaled_by("freq_factors"), 1.0


def _dynamic(p: _Parameters) -> tuple[Floats, float]:
    """Up to the training length, the only lengths that a bundle has: nothing is scaled, except by Hunyuan's alpha."""
    if not p.values.get("alpha"):
        return p.inv_freq, 1.0
    dim = 2 * len(p.pos_freqs)
    base = p.base * p.number("alpha") ** (dim / (dim - 2))
    exponents = np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim)
    return (1.0 / np.float64(base) ** exponents.astype(np.float64)).astype(np.float32), 1.0


def _longrope(p: _Parameters) -> tuple[Floats, float]:
    """LongRoPE (Ding et al. 2024, arXiv:2402.13753): the short factors; ``rope_spec`` adds the long ones."""
    short = p.scaled_by("short_factor")
    if p.values.get("attention_factor") is not None:
        return short, p.number("attention_factor")
    # A stated factor first, as transformers 5 has it, which writes the original length even where it is the whole one.
    factor = p.number("factor", p.length / p.original_length)
    return short, 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(p.original_length))


def _proportional(p: _Parameters) -> tuple[Floats, float]:
    return p.inv_freq / np.float32(p.number("factor", 1.0)), 1.0


_KINDS: dict[str, Callable[[_Parameters], tuple[Floats, float]]] = {
    "default": _default,
    "linear": _linear,
    "llama3": _llama3,
    "yarn": _yarn,
    "dynamic": _dynamic,
    "longrope": _longrope,
    "su": _longrope,
    "freq_factors": _freq_factors,
    _PROPORTIONAL: _proportional,
}
