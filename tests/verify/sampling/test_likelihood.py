"""Choices by likelihood: the sums of log-probabilities of one pass, whatever the grouping; samples that are stored."""

from __future__ import annotations

import numpy as np
import pytest
from engine_support import SETTINGS

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.token_divergence import log_softmax
from edgedistill.verify.models.procedure import ProcedureModel
from edgedistill.verify.sampling import protocol as models
from edgedistill.verify.sampling.likelihood import most_likely
from edgedistill.verify.sampling.store import collect
from edgedistill.verify.types import Message, Procedure, Prompt

CHOICES = ("Mia has 3 apples.", "no", "They are 12 pens and 4 books, which makes 16.")
PROMPT = Prompt(
    "likely", (Message("user", "What is it?"),), answer="A", extract="likelihood", choices=CHOICES
)  # fmt: skip


def by_hand(model, choice):
    """Mean log-probability of a byte of ``choice``, by one step over everything."""
    ids = model.replies.tokens(choice)
    prompt = list(model.replies.encode(PROMPT, None).ids)
    fed = [*prompt, *ids[:-1]]
    logits = model.session.decoder().step(np.array([fed]), None, np.arange(len(prompt) - 1, len(fed))[None], exact=True)
    return log_softmax(logits[0].astype(np.float64))[np.arange(len(ids)), ids].sum() / len(choice.encode())


def test_the_most_likely_choice_of_a_byte(sampled, monkeypatch):
    model = sampled("fp32")
    expected = int(np.argmax([by_hand(model, choice) for choice in CHOICES]))
    for size in (32 << 20, 8 * model.identity.vocab_size):
        monkeypatch.setattr(models, "SCORE_BYTES", size)
        tokens, letter = most_likely(model, model.replies, PROMPT, None)
        assert letter == "ABC"[expected]
        assert list(tokens) == model.replies.tokens(CHOICES[expected])


def test_samples_beside_those_of_replies(sampled, prompts):
    model = sampled("fp32")
    drawn = collect(model, [PROMPT, prompts[0]], 2, SETTINGS)
    assert [one.key for one in drawn] == [("likely", 0), ("likely", 1), (prompts[0].id, 0), (prompts[0].id, 1)]
    letters = {one.sample.answer for one in drawn[:2]}
    assert len(letters) == 1
    assert all(one.sample.correct is (one.sample.answer == "A") for one in drawn[:2])
    assert drawn[0].sample.text in CHOICES


def test_modes_and_empty_choices_are_refused(sampled):
    model = sampled("fp32")
    with pytest.raises(VerifyError, match="decided by likelihood"):
        list(ProcedureModel(model, Procedure("vote", 2)).draw([PROMPT], 1, SETTINGS))
