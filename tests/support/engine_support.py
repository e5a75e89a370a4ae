"""What the tests of sampling share."""

from __future__ import annotations

from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.verify.types import Drawn, Sample

SETTINGS = DrawSettings(temperature=0.6, top_k=20, top_p=0.95, max_new_tokens=40, seed=7)


def fake_drawn(prompt_id: str, index: int, tokens: tuple[int, ...] = (1, 2, 3), text: str = "x") -> Drawn:
    """A sample that no model drew."""
    sample = Sample(prompt_id, index, "parsed", "4", text, len(tokens), 0, False, 0.0, True)
    return Drawn(sample, tokens, "stop")
