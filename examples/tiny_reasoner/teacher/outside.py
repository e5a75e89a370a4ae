"""Questions outside the field, and the honest short reply: what the model is and what it can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .problem import Problem, phrases

if TYPE_CHECKING:
    from random import Random

TOPICS = phrases("topics")
TEMPLATES = phrases("templates")
PLAIN = phrases("questions")

REASONS = ("This is not an arithmetic question.", "This is outside my field.", "There is nothing to calculate here.")

REPLIES = (
    "I am a tiny arithmetic model and cannot help with that. I can add, subtract, multiply and divide whole numbers, "
    "compare them, convert units and solve short word problems.",
    "Sorry, that is outside my field. I am a tiny model for arithmetic, comparisons, unit conversions and short word "
    "problems.",
    "I only know arithmetic: sums, differences, products, quotients, comparisons, units and short word problems. "
    "I do not know the answer to that.",
)
GREETING = (
    "Hello! I am a tiny arithmetic model. Ask me to calculate, compare numbers, convert units or solve a short word "
    "problem."
)
_GREETED = ("Hello", "Hi", "Hey", "Good morning", "Good evening")


def make(rng: Random) -> Problem:
    """Return a question the model cannot answer. The key is the topic: held-out topics are never seen in training."""
    if rng.random() < 0.25:
        question = rng.choice(PLAIN)
        key = f"outside {question}"
    else:
        topic = rng.choice(TOPICS)
        question = rng.choice(TEMPLATES).replace("{}", topic)
        question = question[0].upper() + question[1:]
        key = f"outside {topic}"
    if rng.random() < 0.15:
        question = question.lower()
    greeted = question.capitalize().startswith(_GREETED) and len(question) < 15
    return Problem(
        family="outside",
        band="outside",
        key=key,
        question=question,
        reasoning=rng.choice(REASONS),
        reply=GREETING if greeted else rng.choice(REPLIES),
        answer=None,
    )
