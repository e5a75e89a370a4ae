"""The built-in suite ``arithmetic``: problems generated from a seed, in bands of difficulty, with gold answers.

Every prompt has two variants for the audit of collapse: a paraphrase (same numbers, same answer) and changed numbers
(same words, another answer). One empty prompt belongs to the whole suite.
"""

from __future__ import annotations

from random import Random

from edgedistill.errors import SuiteError
from edgedistill.verify.suites.arithmetic_problems import BANDS, KINDS, words_for
from edgedistill.verify.types import Message, Prompt, Suite

PER_BAND = 30
"""150 prompts in all: harm on 1 in 50 prompts of the population shows on at least one with 95 % (0.98^149 < 0.05)."""

MOST_PER_BAND = 200
"""Limited because some kinds of the easiest band have only a few dozen different questions."""


def arithmetic_suite(seed: int = 0, per_band: int = PER_BAND, bands: tuple[str, ...] = BANDS) -> Suite:
    """Generate the suite; equal arguments give equal suites, whatever the Python version or hash seed.

    Args:
        seed: Any whole number; 0 gives the suite named ``arithmetic``.
        per_band: Prompts per band; a larger suite begins with the same prompts.
        bands: Some of ``BANDS``.

    Raises:
        SuiteError: ``per_band`` is below 1 or above ``MOST_PER_BAND``.
    """
    if not 1 <= per_band <= MOST_PER_BAND:
        raise SuiteError(f"Arithmetic with {per_band} prompts a band was asked for; expected 1 to {MOST_PER_BAND}.")
    prompts: list[Prompt] = []
    variants: list[Prompt] = []
    for band in bands:
        rng = Random(f"edgedistill arithmetic {seed} {band}")
        asked: set[str] = set()
        while len(asked) < per_band:
            number = len(asked) + 1
            prompt, of_it = _problem(rng, f"{band}-{number:02}", band, number)
            text = prompt.messages[0].content
            if text not in asked:
                asked.add(text)
                prompts.append(prompt)
                variants += of_it
    variants.append(Prompt("empty", (Message("user", ""),), variant="empty"))
    name = "arithmetic" if (seed, per_band, bands) == (0, PER_BAND, BANDS) else f"arithmetic-seed{seed}x{per_band}"
    return Suite(name, tuple(prompts), tuple(variants))


def _problem(rng: Random, prompt_id: str, band: str, number: int) -> tuple[Prompt, list[Prompt]]:
    """One prompt and its variants; the kinds of a band take turns, so that every kind is in every suite."""
    kind = KINDS[band][(number - 1) % len(KINDS[band])]
    words = words_for(rng)
    numbers = kind.draw(rng)
    answer = kind.answer(*numbers)
    wording, other = rng.sample(range(len(kind.wordings)), 2)
    changed = kind.draw(rng)
    while kind.answer(*changed) == answer:
        changed = kind.draw(rng)
    tags = (band, kind.family)
    asked = Prompt(prompt_id, (Message("user", kind.question(wording, numbers, words)),), str(answer), tags=tags)
    variants = [
        Prompt(
            id=f"{prompt_id}/paraphrase",
            messages=(Message("user", kind.question(other, numbers, words)),),
            answer=str(answer),
            tags=tags,
            variant_of=prompt_id,
            variant="paraphrase",
        ),
        Prompt(
            id=f"{prompt_id}/changed-number",
            messages=(Message("user", kind.question(wording, changed, words)),),
            answer=str(kind.answer(*changed)),
            tags=tags,
            variant_of=prompt_id,
            variant="changed-number",
        ),
    ]
    return asked, variants
