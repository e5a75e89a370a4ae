"""What is calibrated on without a file of the user: questions that traces answer, and the built-in texts; and those
that are held out to judge by.

None of them occurs in a built-in verification suite: what is fitted on these must be judged on others. Arithmetic and
word problems are generated with seeds of their own; everyday requests are templates over topics.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from random import Random
from typing import TYPE_CHECKING, Any

from edgedistill.errors import EdgedistillError
from edgedistill.verify.suites.arithmetic import arithmetic_suite
from edgedistill.verify.types import Message, Prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ARITHMETIC_SEED = 90_001
"""Verification uses seed 0; users' own suites small numbers."""

_TEMPLATES = (
    "Explain {t} to a child of ten.",
    "What are the main causes of {t}? Think step by step.",
    "Write a short dialogue between two friends who disagree about {t}.",
    "Give me three practical tips about {t} and say why each one helps.",
    "Summarise what is commonly known about {t} in one paragraph.",
    "Is it true that {t} has changed a lot in the last hundred years? Reason carefully before you answer.",
    "Write an e-mail to a colleague who asked about {t}.",
    "Compare {t} with something similar, and list two differences.",
    "Write a small Python function that could be useful for somebody who deals with {t}, and explain it.",
    "What question about {t} is hard to answer, and why?",
    "Translate into plain words: an expert's definition of {t}.",
    "Plan a day around {t}: morning, afternoon and evening.",
)
_TOPICS = (
    "the tides", "bread baking", "old clocks", "sorting a list", "earthquakes", "learning a language",
    "public libraries", "the human heart", "solar panels", "chess openings", "medieval towns", "sleep",
    "ocean currents", "prime numbers", "bicycles", "vaccines", "street music", "compound interest",
    "bees", "railway timetables", "volcanoes", "handwriting", "recycling glass", "the moon",
    "working from home", "spices", "computer memory", "forest fires", "chocolate", "elections",
    "photosynthesis", "lighthouses in fiction", "budgeting", "weather forecasts", "stage fright", "maps of the sea",
)  # fmt: skip
_ARITHMETIC_EVERY = 2


def calibration_prompts(count: int, seed: int = 0) -> tuple[Prompt, ...]:
    """``count`` prompts, arithmetic and everyday requests in turn; equal arguments give equal prompts.

    Requests of an even and of an odd ``seed`` have none in common: one set to fit on, another to judge by.
    """
    rng = Random(f"edgedistill calibration {seed}")
    pairs = [(template, topic) for template in _TEMPLATES for topic in _TOPICS]
    Random("edgedistill calibration").shuffle(pairs)
    pairs = pairs[seed % 2 :: 2]
    rng.shuffle(pairs)
    judged = {prompt.messages for prompt in arithmetic_suite().prompts}
    generated = arithmetic_suite(seed=ARITHMETIC_SEED + seed, per_band=max(2, count // 8)).prompts
    arithmetic = [prompt for prompt in generated if prompt.messages not in judged]
    rng.shuffle(arithmetic)
    prompts: list[Prompt] = []
    for number in range(count):
        if number % _ARITHMETIC_EVERY == 0:
            chosen = arithmetic[number // _ARITHMETIC_EVERY % len(arithmetic)]
            messages = chosen.messages
        else:
            template, topic = pairs[number // _ARITHMETIC_EVERY % len(pairs)]
            messages = (Message("user", template.replace("{t}", topic)),)
        prompts.append(Prompt(f"calibration-{seed}-{number}", messages, extract="text"))
    return tuple(prompts)


BUILT_IN = "built-in texts"


def built_in_texts(render: Callable[[list[dict[str, Any]]], str], *, held_out: bool = False) -> Iterator[str]:
    """The texts of ``texts.toml`` in order, or of ``held_out.toml``.

    Args:
        held_out: Those that no calibration sees.
        render: Messages to text, by the model's chat template. Where it refuses a conversation (some know no system
            message), the contents follow one another without a template.
    """
    table = tomllib.loads(
        files(__package__).joinpath("held_out.toml" if held_out else "texts.toml").read_text(encoding="utf-8")
    )
    for entry in table["text"]:
        if "text" in entry:
            yield entry["text"].strip()
            continue
        try:
            yield render(entry["messages"])
        except EdgedistillError:
            yield "\n\n".join(message["content"] for message in entry["messages"])
