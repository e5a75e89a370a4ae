"""What a checkpoint's generation_config.json recommends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLING_KEYS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Keys of generation_config.json that both transformers and ``GenerationSettings`` know."""


def recommended(generation_config: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling settings that the model's author recommends, as they stand there.

    ``do_sample: false`` or absent says nothing about temperature (it is what transformers writes by default), so only
    the settings themselves count.
    """
    found = {key: generation_config[key] for key in SAMPLING_KEYS if generation_config.get(key) is not None}
    top_k = found.get("top_k")
    return found | ({"top_k": int(top_k)} if isinstance(top_k, float) and top_k.is_integer() else {})
