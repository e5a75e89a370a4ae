"""Model types without a row in ``family_table`` that people ask for, and why they have none."""

from __future__ import annotations

_REASONS = {
    "minicpm3": "its attention is latent (low-rank queries, keys and values)",
    **dict.fromkeys(
        ("nemotron_h", "falcon_h1", "jamba", "bamba", "zamba2", "mamba2"),
        "it has Mamba layers, which are known of Granite 4-h alone",
    ),
    "qwen3_next": "its recurrent layers store queries, keys, values and gates in an order that is not known",
    "phimoe": "its router masks logits by a threshold",
}


def reason(model_type: str) -> str:
    """Why a type that people ask for has no row, to end a sentence with: ``": it ..."``; empty if none is known."""
    return f": {_REASONS[model_type]}" if model_type in _REASONS else ""
