"""Write questions.jsonl: held-out questions of every band for scripts and suites that have neither teacher nor torch.

`python examples/tiny_reasoner/questions.py` rewrites the file beside it; the seed differs from the evaluation's.
"""

from __future__ import annotations

import json
from pathlib import Path

from teacher import BANDS, heldout

PER_BAND = 20
FILE = Path(__file__).with_name("questions.jsonl")


def lines() -> list[str]:
    """Return the JSON lines: id, prompt, answer (null outside the field), band and family."""
    return [
        json.dumps(
            {
                "id": f"{band}-{number:02}",
                "prompt": problem.question,
                "answer": problem.answer,
                "band": band,
                "family": problem.family,
            },
            ensure_ascii=False,
        )
        for band in BANDS
        for number, problem in enumerate(heldout(band, PER_BAND, seed=3), start=1)
    ]


if __name__ == "__main__":
    FILE.write_text("\n".join(lines()) + "\n", encoding="utf-8")
