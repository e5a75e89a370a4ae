"""Number formats of the KV cache and the scales of quantized ones: maxima of keys and values in, scales out.

Keys and values have scales of their own. A value is code * scale with codes -127 .. 127 (8 bits) or -7 .. 7 (4 bits),
rounded by the attention kernel when it writes a token; larger values are clipped. Clipping is the larger danger: scales
leave room above what calibration saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

Granularity = Literal["per-channel", "per-tensor"]
MARGINS = {8: 1.3, 4: 0.8}
"""Factor on the largest calibrated magnitude, by bits. In 8 bits clipping is what hurts (SmolLM2-135M, per channel,
mean KL over 2,048 tokens: .0054 with 1.0, .0035 with 1.15, .0027 with 1.3), in 4 bits the coarse step (.28 with 0.6,
.18 with 0.8)."""
_FLOOR = 1e-3
"""Smallest scale of a channel relative to its tensor's largest: one that calibration never saw move still may."""


@dataclass(frozen=True, slots=True)
class KvScales:
    """Scales of all layers.

    Attributes:
        bits: 8 or 4.
        granularity: One scale per channel, or one per tensor (a layer's keys, a layer's values).
        key: Per layer, float32 [1, kv_heads, 1, head_dim] or [1].
        value: The same for values.
    """

    bits: int
    granularity: Granularity
    key: tuple[Floats, ...]
    value: tuple[Floats, ...]


def kv_scales(
    key: Sequence[Floats], value: Sequence[Floats], *, bits: int, granularity: Granularity, margin: float | None = None
) -> KvScales:
    """Scales from the largest magnitudes of each layer's keys and values.

    Args:
        key: Per layer, float32 [kv_heads, head_dim] >= 0.
        value: The same for values.
        bits: 8 or 4.
        granularity: See ``KvScales``.
        margin: Factor on the maxima; default: that of ``MARGINS``.

    Raises:
        ValueError: Maxima that are negative or not finite, or another number of bits.
    """
    if bits not in (8, 4):
        raise ValueError(f"a KV cache of {bits} bits; expected 8 or 4")
    top = np.float32(2 ** (bits - 1) - 1)
    room = np.float32(MARGINS[bits] if margin is None else margin)

    def scales(maxima: Floats) -> Floats:
        if not np.isfinite(maxima).all() or (maxima < 0).any():
            raise ValueError("maxima of keys or values are negative or not finite")
        largest = np.float32(maxima.max())
        if largest == 0:
            largest = np.float32(1)
        if granularity == "per-tensor":
            return np.array([largest * room / top], dtype=np.float32)
        floored = np.maximum(maxima, largest * np.float32(_FLOOR)) * room / top
        return np.ascontiguousarray(floored[None, :, None, :], dtype=np.float32)

    return KvScales(bits, granularity, tuple(map(scales, key)), tuple(map(scales, value)))


def rotated_maxima(keys: Floats, inv_freq: Floats, positions: npt.NDArray[np.int64], context: int) -> Floats:
    """Largest magnitudes that rotary keys can reach anywhere in the context, float32 [heads, head_dim].

    The cache holds keys after RoPE: channels j and j + r/2 of a head are the coordinates of a vector turned by
    position * inv_freq[j]. A slow pair turns visibly only over thousands of tokens, so its maxima over short texts
    say nothing about long ones. Each pair is turned back and then through all angles that the context reaches: the
    largest |x cos a - y sin a| and |x sin a + y cos a| for a between 0 and (context - 1) * inv_freq[j].

    Args:
        keys: float32 [heads, tokens, head_dim], after RoPE (halves rotated, as GroupQueryAttention does by default).
        inv_freq: float32 [r/2], radians per position; channels from r on are not rotated.
        positions: int64 [tokens].
        context: Positions to be covered.
    """
    maxima = np.abs(keys).max(axis=1, initial=0)
    half = len(inv_freq)
    x, y = keys[..., :half].astype(np.float64), keys[..., half : 2 * half].astype(np.float64)
    now = positions[:, None] * inv_freq[None, :].astype(np.float64)
    radius, angle = np.hypot(x, y), np.arctan2(y, x) - now
    reach = (context - 1) * inv_freq.astype(np.float64)

    def largest_cos(start: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """max |cos| over [start, start + reach]: 1 where the arc holds a multiple of pi, else at one of its ends."""
        ends = np.maximum(np.abs(np.cos(start)), np.abs(np.cos(start + reach)))
        crosses = np.floor((start + reach) / np.pi) > np.floor(start / np.pi)
        return np.where(crosses, 1.0, ends)

    first = (radius * largest_cos(angle)).max(axis=1, initial=0)
    second = (radius * largest_cos(angle - np.pi / 2)).max(axis=1, initial=0)
    maxima[:, :half] = np.maximum(maxima[:, :half], first)
    maxima[:, half : 2 * half] = np.maximum(maxima[:, half : 2 * half], second)
    found: Floats = maxima.astype(np.float32)
    return found
