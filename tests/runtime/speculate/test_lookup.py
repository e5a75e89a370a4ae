"""Guesses from the text: the last place where its end stood before, and what followed there."""

from __future__ import annotations

import numpy as np

from edgedistill.runtime.speculate.lookup import TOP_CONFIDENCE, PromptLookup


def _lookup(tokens: list[int]) -> PromptLookup:
    made = PromptLookup()
    made.extend(tokens)
    return made


def test_what_followed_the_same_tokens_before() -> None:
    text = [1, 2, 3, 4, 5, 6, 9, 2, 3, 4]
    found = _lookup(text)
    assert found.confidence() == 3
    assert found.propose(3) == [5, 6, 9]


def test_a_new_token_has_no_guess() -> None:
    assert _lookup([1, 2, 3, 4]).confidence() == 0
    assert _lookup([]).confidence() == 0
    assert _lookup([7]).confidence() == 0


def test_the_latest_of_several_places_counts() -> None:
    assert _propose([5, 1, 0, 5, 2, 0, 5], 1) == [2]


def test_a_longer_match_goes_before_a_later_one() -> None:
    assert _propose([1, 2, 3, 4, 50, 9, 4, 60, 1, 2, 3, 4], 1) == [50]


def test_a_text_that_repeats_goes_on_repeating() -> None:
    found = _lookup([7, 8, 9] * 5)
    assert found.confidence() == TOP_CONFIDENCE
    assert found.propose(7) == [7, 8, 9, 7, 8, 9, 7]


def _propose(text: list[int], count: int) -> list[int]:
    found = _lookup(text)
    assert found.confidence()
    return found.propose(count)


def test_confidence_is_the_length_of_the_match_on_random_texts() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        text = rng.integers(0, 3, size=int(rng.integers(1, 40))).tolist()
        found = _lookup(text[:5])
        found.extend(text[5:])  # piece by piece is the same as at once
        size = found.confidence()
        ends = [end for end in range(1, len(text)) if text[:end][-max(size, 1) :] == text[-max(size, 1) :]]
        if size == 0:
            assert not ends
            continue
        proposal = found.propose(1)
        assert proposal[0] in {text[end] for end in ends if end >= size}
