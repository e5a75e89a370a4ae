"""The text on which quality is measured: ``held_out.toml`` as tokens, by kind of text, and in-domain replies.

The kind ``in-domain`` has replies to prompts from the same templates and generator as the calibration, with another
seed: it shows how much better a bundle looks on text like its calibration data. All other kinds share nothing with a
calibration.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.traces.generate import self_generated
from edgedistill.verify.models.bundle import BundleModel
from edgedistill.verify.types import Message, Prompt

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt

    from edgedistill.runtime.model import Model

    Ids = npt.NDArray[np.int64]

TEXTS = Path(__file__).with_name("held_out.toml")
IN_DOMAIN = "in-domain"
KINDS = ("chat", "code", "languages", "prose", "reasoning")
SEED = 1
_LONGEST = 512


def held_out(model: Model, tokens: int) -> dict[str, list[Ids]]:
    """Sequences of ids by kind, int64 [n] each, with about ``tokens`` tokens of each kind, ``IN_DOMAIN`` last.

    Args:
        model: The original, which writes the replies.
        tokens: A kind that has fewer is whole.
    """
    table = tomllib.loads(TEXTS.read_text(encoding="utf-8"))
    longest = min(_LONGEST, model.bundle.manifest.model.context_length)
    found: dict[str, list[Ids]] = {"chat": _replies(model, table["chat"][0]["prompts"], longest // 2)}
    for entry in table["text"]:
        ids = np.asarray(model.encode(entry["text"].strip(), raw=True), dtype=np.int64)
        found.setdefault(entry["kind"], []).extend(ids[a : a + longest] for a in range(0, len(ids) - 1, longest))
    own = self_generated(model, sequences=-(-tokens // 256), length=min(256, longest), seed=SEED)
    found[IN_DOMAIN] = list(own.sequences)
    return {kind: _even(found[kind], tokens) for kind in (*KINDS, IN_DOMAIN)}


def _even(sequences: list[Ids], tokens: int) -> list[Ids]:
    """About ``tokens`` of them, the same share of each sequence, so that fewer tokens are no narrower text."""
    share = min(1.0, tokens / sum(map(len, sequences)))
    return [ids[: max(2, round(share * len(ids)))] for ids in sequences]


def _replies(model: Model, prompts: Iterable[str], length: int) -> list[Ids]:
    drawer = BundleModel(model)
    asked = [Prompt(f"held-out-{n}", (Message("user", text),), extract="text") for n, text in enumerate(prompts)]
    encoded = {prompt.id: drawer.replies.encode(prompt, None).ids for prompt in asked}
    settings = DrawSettings(temperature=1.0, top_k=128, max_new_tokens=length, seed=SEED)
    replies = {drawn.key[0]: drawn.token_ids for drawn in drawer.draw(asked, 1, settings)}
    found = [np.array([*encoded[p.id], *replies[p.id]], dtype=np.int64)[: 2 * length] for p in asked]
    return [ids for ids in found if len(ids) >= 2]
