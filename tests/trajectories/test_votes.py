"""Who wins a vote: counts, weights, ties, and trajectories without a vote that must not win."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.answers.extract import extract
from edgedistill.trajectories.vote import (
    Ballot,
    Kind,
    by_confidence,
    majority,
    most_similar,
    named_reply,
    token_confidence,
    trajectory_confidence,
)

KINDS: tuple[Kind, ...] = ("unparsed", "truncated", "cancelled", "cut")


@st.composite
def ballots(draw: st.DrawFn) -> list[Ballot]:
    made = []
    for index in range(draw(st.integers(1, 20))):
        answer = draw(st.sampled_from(["1", "2", "3", None]))
        kind: Kind = "answered" if answer else draw(st.sampled_from(KINDS))
        made.append(Ballot(index, kind, answer, draw(st.floats(0.5, 20.0))))
    return made


@given(ballots())
def test_a_majority_has_the_most_votes_and_every_trajectory_is_accounted_for(given_ballots) -> None:
    result = majority(given_ballots)
    votes = Counter(ballot.answer for ballot in given_ballots if ballot.answer)
    most = max(votes.values(), default=0)
    first = [answer for answer in votes if votes[answer] == most]
    assert set(result.tied) == (set(first) if len(first) > 1 else set())
    if votes:
        earliest = next(ballot for ballot in given_ballots if ballot.answer in first)
        assert (result.answer, result.winner) == (earliest.answer, earliest.index)
    else:
        assert (result.answer, result.winner, result.tallies) == (None, None, ())
    without = result.unparsed + result.truncated + result.cancelled + result.cut
    assert result.voters + without == len(given_ballots)
    assert {tally.answer: tally.votes for tally in result.tallies} == votes


@given(ballots(), st.floats(0.1, 1.0))
def test_a_confidence_vote_keeps_the_most_confident_and_adds_their_weights(given_ballots, keep) -> None:
    result = by_confidence(given_ballots, keep=keep)
    voters = [ballot for ballot in given_ballots if ballot.answer]
    kept = [ballot for ballot in voters if ballot.index not in result.dropped]
    assert len(kept) == (max(1, round(keep * len(voters))) if voters else 0)
    dropped = [ballot.confidence for ballot in voters if ballot.index in result.dropped]
    assert not dropped or max(dropped) <= min(ballot.confidence for ballot in kept)
    for tally in result.tallies:
        expected = sum(ballot.confidence for ballot in kept if ballot.answer == tally.answer)
        assert tally.weight == pytest.approx(expected)
    if kept:
        assert result.tallies[0].weight == max(tally.weight for tally in result.tallies)


def test_one_sure_trajectory_outweighs_two_unsure_ones() -> None:
    votes = [Ballot(0, "answered", "7", 2.0), Ballot(1, "answered", "7", 2.0), Ballot(2, "answered", "8", 9.0)]
    assert majority(votes).answer == "7"
    assert by_confidence(votes, keep=1.0).answer == "8"
    assert by_confidence(votes, keep=1 / 3).dropped == (0, 1)


def test_garbage_never_wins() -> None:
    garbage = [Ballot(i, "truncated", None) for i in range(7)]
    assert majority([*garbage, Ballot(7, "answered", "5")]).answer == "5"
    assert majority(garbage).answer is None


@given(st.integers(2, 300), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_token_confidence_is_the_negative_mean_of_the_top_log_probabilities(vocab, top, seed) -> None:
    logits = (np.random.default_rng(seed).standard_normal((3, vocab)) * 3).astype(np.float32)
    exact = logits.astype(np.float64)
    logs = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
    expected = -np.sort(logs, axis=1)[:, ::-1][:, :top].mean(axis=1)
    assert token_confidence(logits, top) == pytest.approx(expected, rel=1e-5)


def test_measures_of_a_trajectory() -> None:
    tokens = [9.0, 1.0, 2.0, 9.0, 6.0, 8.0]
    assert trajectory_confidence(tokens, "mean", 2) == pytest.approx(35 / 6)
    assert trajectory_confidence(tokens, "tail", 2) == 7.0
    assert trajectory_confidence(tokens, "lowest", 2) == 1.5
    assert trajectory_confidence(tokens, "lowest", 100) == trajectory_confidence(tokens, "tail", 100)
    assert np.isnan(trajectory_confidence([], "tail", 2))


@pytest.mark.parametrize(
    ("text", "form", "expected"),
    [
        (r"So it is \boxed{1/2}.", "auto", "1/2"),
        ("There are 12 of them.\n\nThe answer is 42.", "auto", "42"),
        ("Adding both gives\n12 + 30 = 42", "auto", "42"),
        ("1. red\n2. blue\n3. green", "auto", None),
        ("In 1969 men walked on the moon.\nIt was a great day.", "auto", None),
        ("", "auto", None),
        ("It is B.", "choice", "B"),
    ],
)
def test_answers_that_can_be_compared(text, form, expected) -> None:
    assert extract(text, form) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Reply 3", 3),
        ("The most consistent response is Response #2 because 4 of 5 agree.", 2),
        ("**Reply 1**", 1),
        ("2", 2),
        ("Reply 9", None),
        ("Reply 1 or reply 2", None),
        ("None of them.", None),
        ("3.5", None),
    ],
)
def test_the_reply_that_is_named(text, expected) -> None:
    assert named_reply(text, 5) == expected


def test_the_most_similar_reply() -> None:
    texts = ["bananas are blue", "The sky is blue.", "the sky is blue", "blue"]
    assert most_similar(texts) == 1
    assert most_similar(["", ""]) == 0
