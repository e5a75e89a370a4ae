"""A bundle's size before it is made: the weights' layout by arithmetic, the other files by writing them to memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.bundle.bundle import WEIGHTS
from edgedistill.export import native as own
from edgedistill.export import text_files as texts
from edgedistill.quantize.kv import kv_scales

if TYPE_CHECKING:
    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.export.plan import Plan
    from edgedistill.profile.profile import Profile
    from edgedistill.quantize.kv import Granularity, KvScales

_CARD_BYTES = 1500
"""The bundle's own README.md, which is written once everything else is known."""


def bundle_bytes(checkpoint: Checkpoint, plan: Plan, profile: Profile) -> int:
    """Bytes of all files that the manifest of the bundle will list."""
    with tempfile.TemporaryDirectory(prefix="edgedistill-plan-") as folder:
        path = Path(folder)
        own.write_graphs(path, plan, _scales(plan, profile))
        texts.write_texts(path, checkpoint, profile, plan.context_length)
        texts.write_genai(path, checkpoint, profile, plan.spec, plan.context_length)
        small = sum(file.stat().st_size for file in path.iterdir() if file.name != WEIGHTS)
    return plan.layout.size + small + sum(map(len, checkpoint.extra_files.values())) + _CARD_BYTES


def _scales(plan: Plan, profile: Profile) -> KvScales | None:
    """Scales of the right shape; their values take the same room."""
    cache, spec = profile.kv_cache, plan.spec
    if not cache.is_quantized:
        return None
    maxima = [np.ones((spec.num_key_value_heads, spec.head_dim), np.float32)] * spec.num_hidden_layers
    granularity: Granularity = "per-channel" if cache.scales == "per-channel" else "per-tensor"
    return kv_scales(maxima, maxima, bits=cache.bits, granularity=granularity)
