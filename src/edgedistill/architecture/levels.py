"""The table of families: what a checkpoint of each may look like, and what tests have shown about it.

``levels.json`` is written by the parity tests (``make families``), never by hand. A level contains those before it:

1. config read: there is a row in ``family_table``;
2. logits equal: a tiny random model saved by transformers gives that transformers' logits;
3. real weights: a trained model gives transformers' greedy tokens.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

from edgedistill.architecture.family_table import FAMILIES
from edgedistill.checkpoint.gguf.architectures import ARCHITECTURES
from edgedistill.json_codec import Record


@dataclass(frozen=True, slots=True)
class FamilyLevel(Record):
    """What is known about a family.

    Attributes:
        model_type: As config.json has it.
        gguf: Names of its GGUF architecture (``general.architecture``); empty where GGUF files are not read.
        inside: Types of multimodal checkpoints whose text part is of this family.
        logits_equal: Versions of transformers whose checkpoints give transformers' logits.
        gguf_equal: GGUF architectures that give the logits of the checkpoint that they were written from.
        answered: Trained models that give transformers' greedy tokens.
    """

    DERIVED = ("level", "forms")

    model_type: str
    gguf: tuple[str, ...]
    inside: tuple[str, ...]
    logits_equal: tuple[str, ...]
    gguf_equal: tuple[str, ...]
    answered: tuple[str, ...]

    @property
    def level(self) -> str:
        """The highest level reached, in words."""
        if self.answered:
            return "real weights"
        majors = " and ".join(version.partition(".")[0] for version in self.logits_equal)
        return f"logits equal, {majors}" if majors else "config read"

    @property
    def forms(self) -> tuple[str, ...]:
        """File formats that it is read from."""
        return ("safetensors", "gguf") if self.gguf else ("safetensors",)


def family_levels() -> tuple[FamilyLevel, ...]:
    """All families by name."""
    known: dict[str, dict[str, list[str]]] = json.loads(files(__package__).joinpath("levels.json").read_text("utf-8"))
    rows = []
    for name in sorted(FAMILIES):
        shown = known.get(name, {})
        gguf = tuple(arch for arch, row in ARCHITECTURES.items() if name in (row.model_type, *row.also))
        parts = (tuple(shown.get(kind, ())) for kind in ("inside", "logits", "gguf", "answered"))
        rows.append(FamilyLevel(name, gguf, *parts))
    return tuple(rows)
