"""Asks math-verify (extra: math) which answers to a prompt mean the same, in a child process with limits.

Its parser is slow, and what a model writes can cause long computations. Each comparison and the process have a time
limit; answers that were not decided by then stay different. Only numbers and formulas are compared: math-verify does
not know dates, letters or texts.
"""

from __future__ import annotations

from collections import Counter
from importlib.metadata import version
from importlib.util import find_spec
from itertools import combinations
from typing import TYPE_CHECKING, Any

from edgedistill.answers.extract import read
from edgedistill.answers.typed import read_span
from edgedistill.errors import ChildError
from edgedistill.extras import missing
from edgedistill.progress import NullProgress
from edgedistill.system.child import iterate_in_child
from edgedistill.verify.metrics.second_opinion import Opinion

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgedistill.progress import Progress
    from edgedistill.verify.types import Prompt, Sample

MOST_KEYS = 8
"""Number of keys of a prompt that are compared, the most frequent ones: 28 pairs."""
PAIR_SECONDS = 2
MOST_SECONDS = 900
MEMORY_BYTES = 2 << 30
_TYPES = frozenset(("number", "fraction", "percent", "expression", "relation", "set", "tuple", "interval", "list"))

Job = tuple[str, list[str], list[str]]
"""A prompt's id, its keys, and how a reply spells each key."""


def require_math_verify() -> None:
    """Raises MissingExtraError if math-verify is not installed."""
    if find_spec("math_verify") is None:
        raise missing("A second opinion is given by the package math-verify, which is not installed.", "math")


def ask(prompts: Sequence[Prompt], samples: Sequence[Sample], progress: Progress | None = None) -> Opinion:
    """Ask which keys of each prompt mean the same.

    Args:
        prompts: Of the suite.
        samples: Of all models that are compared, so that the same keys are merged for each.
        progress: Receives prompts.

    Raises:
        MissingExtraError: It is not installed.
    """
    require_math_verify()
    progress = progress or NullProgress()
    judge = f"math-verify {version('math-verify')}"
    work = list(jobs(prompts, samples))
    pairs = sum(len(keys) * (len(keys) - 1) // 2 for _, keys, _ in work)
    same: dict[str, dict[str, str]] = {}
    equal = decided = 0
    if work:
        progress.begin("asking math-verify", len(work), "items")
    limit = min(MOST_SECONDS, 60 + PAIR_SECONDS * pairs)
    try:
        for prompt_id, found, done in iterate_in_child(compare, work, time_limit=limit, memory_limit=MEMORY_BYTES):
            keys = next(keys for name, keys, _ in work if name == prompt_id)
            equal += len(found)
            decided += done
            if found:
                same[prompt_id] = _classes(keys, found)
            progress.advance(1)
    except ChildError:
        pass  # out of time or memory: the remaining pairs count as undecided
    if work:
        progress.end()
    return Opinion(judge, same, len(work), pairs, equal, pairs - decided)


def jobs(prompts: Sequence[Prompt], samples: Sequence[Sample]) -> Iterator[Job]:
    """The prompts with several keys that are numbers or formulas; the right answer comes first."""
    spans: dict[str, dict[str, str]] = {}
    counts: dict[str, Counter[str]] = {}
    for sample in samples:
        if sample.answer is not None:
            counts.setdefault(sample.prompt_id, Counter())[sample.answer] += 1
            spans.setdefault(sample.prompt_id, {}).setdefault(sample.answer, sample.text)
    for prompt in prompts:
        if prompt.extract in ("checks", "code", "likelihood", "choice", "text") or prompt.choices:
            continue
        found = [key for key, _ in counts.get(prompt.id, Counter()).most_common()]
        first = [prompt.answer] if prompt.answer is not None else []
        keys = [key for key in dict.fromkeys((*first, *found)) if _comparable(key)][:MOST_KEYS]
        if len(keys) > 1:
            yield prompt.id, keys, [_written(key, spans[prompt.id].get(key, "")) for key in keys]


def _comparable(key: str) -> bool:
    answer = read_span(key)
    return answer is not None and answer.type in _TYPES


def _written(key: str, reply: str) -> str:
    """The answer as the reply spells it, if that is read as this key; else the key."""
    answer = read(reply, "auto") if reply else None
    return answer.span if answer is not None and answer.key == key else key


def _classes(keys: Sequence[str], equal: Sequence[tuple[int, int]]) -> dict[str, str]:
    """For every key that is equal to an earlier one: the first key that it is equal to."""
    first = list(range(len(keys)))
    for a, b in equal:
        low, high = sorted((first[a], first[b]))
        first = [low if at == high else at for at in first]
    return {keys[at]: keys[to] for at, to in enumerate(first) if at != to}


def compare(work: Sequence[Sequence[Any]]) -> Iterator[tuple[str, list[tuple[int, int]], int]]:
    """In the child process: for each job its id, the pairs of keys that mean the same, and how many were decided."""
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    for prompt_id, keys, texts in work:
        parsed = []
        for key, text in zip(keys, texts, strict=True):
            plain = text.strip().strip("$").strip()
            read_as = parse(f"${plain}$", parsing_timeout=PAIR_SECONDS) or parse(key, parsing_timeout=PAIR_SECONDS)
            parsed.append(read_as)
        equal, decided = [], 0
        for a, b in combinations(range(len(keys)), 2):
            if not parsed[a] or not parsed[b]:
                continue
            decided += 1
            if verify(parsed[a], parsed[b], timeout_seconds=PAIR_SECONDS) or verify(
                parsed[b], parsed[a], timeout_seconds=PAIR_SECONDS
            ):
                equal.append((a, b))
        yield prompt_id, equal, decided
