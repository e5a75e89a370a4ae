"""Names the state of a model on a suite with one word: consistent-correct, consistent-wrong, collapsed and others.

A model that gives the same answer to every question agrees with itself perfectly, so consistency alone is never good:
low entropy with low mutual information between prompt and answer is collapse. Without gold answers the information is
compared with what labels of the same frequencies could carry at most: shuffled labels carry none of it, a classifier
that always gives the same label to a prompt carries all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edgedistill.verify.types import Estimate

VerdictName = Literal[
    "consistent-correct", "consistent-wrong", "collapsed", "partly-collapsed", "deterministic-decoding", "diffuse"
]
Yardstick = Literal["gold", "own", "labels"]
FEWEST = 5
"""Prompts: even if fewer than these all behave alike, most prompts of the population might not (0.5 ** 4 > 0.05)."""

_OF: dict[Yardstick, str] = {
    "gold": "the right ones would",
    "own": "one of its own to each prompt would",
    "labels": "answers as frequent as these could",
}


_HARDLY = "they hardly depend on the question"
_SHARED = (
    " Many prompts share a text, as they do where few labels are right, and where a model has one reply for every kind "
    "of question: gold answers or `choices` would tell which."
)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Limits of the verdict.

    Attributes:
        agreement: Mean agreement C from which a model counts as consistent.
        information: Share of the gold answers' information below which answers do not depend on the question.
        accuracy: Share of right answers from which consistent answers count as correct.
        collision: Where whole texts are compared: probability that two prompts get the same text, below which texts are
            too varied for a verdict of collapse.
        favourite: Share of one answer (or of copies from the prompt) on prompts where another answer is right, from
            which a model counts as partly collapsed.
        copied: Share of copies from the prompt from which it counts as collapsed.
    """

    agreement: float = 0.5
    information: float = 0.5
    accuracy: float = 0.5
    collision: float = 0.05
    favourite: float = 0.2
    copied: float = 0.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """The word, whether the intervals of all numbers behind it exclude their thresholds, and the reason in a sentence.

    ``name`` is None if a consistent model cannot be called right or wrong for lack of gold answers.
    """

    name: VerdictName | None
    certain: bool
    reason: str


def verdict(
    agreement: Estimate,
    information: Estimate,
    accuracy: Estimate | None,
    *,
    deterministic: bool,
    texts: Estimate | None = None,
    yardstick: Yardstick = "gold",
    favourite: tuple[str, Estimate] | None = None,
    constant: bool = False,
    prompts: int = FEWEST,
    copied: tuple[str, Estimate] | None = None,
    thresholds: Thresholds | None = None,
) -> Verdict:
    """Name the state of a model.

    Args:
        agreement: Mean over prompts of C.
        information: Ratio of the mutual information to that of the gold answers (``collapse.Collapse.ratio``).
        accuracy: Share of right answers; None without gold.
        deterministic: Decoding left no choice (temperature 0 or top_k 1): consistency is then no property of the model.
        texts: Where the information is that of texts, not of the answers whose agreement is given: the probability that
            two prompts get the same text. Texts that are all different carry no information that can be distinguished
            from chance, and are no collapse.
        yardstick: What the information is compared with: gold answers, an answer of its own to each prompt, or labels
            as frequent as the model's own.
        favourite: The answer that is given most often where others belong (``collapse.Collapse.favourite``), and its
            share.
        constant: There are no gold answers, and the model has only one answer.
        prompts: Their number; of fewer than ``FEWEST`` nothing is certain.
        copied: The place of the prompt that answers repeat most where others belong (without gold: everywhere), and the
            share that do (``copier.copies``).
    """
    limits = thresholds or Thresholds()
    if deterministic:
        return Verdict(
            "deterministic-decoding",
            True,
            "Decoding was deterministic, so that every model agrees with itself; consistency was not scored.",
        )
    consistent = agreement.value >= limits.agreement
    enough = prompts >= FEWEST
    certain = _clears(agreement, limits.agreement) and enough
    share = f"two samples agree with probability {agreement.value:.3f}"
    collapsed, sure, evidence = _collapsed(information, texts, limits, yardstick)
    if not consistent:
        also = f"; the {evidence}, so that {_HARDLY} either" if collapsed and sure else ""
        return Verdict("diffuse", certain, f"On average {share}, less than {limits.agreement:g}{also}.")
    certain = certain and sure
    if collapsed and yardstick == "labels" and not sure and not constant:
        reason = (
            f"Consistent ({share}), but the {evidence}: too little to tell a choice from chance on {prompts} prompts."
        )
        return Verdict(None, False, reason)
    if collapsed:
        reason = f"Although {share}, the {evidence}: {_HARDLY}."
        if constant:
            reason += " There is one answer to everything, which may be right everywhere: gold answers would tell."
        return Verdict("collapsed", certain and not constant, reason)
    part: Verdict | None = None
    if copied is not None and accuracy is not None and copied[1].value >= limits.favourite:
        part = _copier(copied, limits, share, certain=_clears(agreement, limits.agreement) and enough)
    elif favourite is not None and favourite[1].value >= limits.favourite:
        part = _partly(favourite, limits, certain=enough, gold=accuracy is not None)
    if copied is not None and accuracy is None and copied[1].value >= limits.copied:
        evidence += f", but {copied[1].value:.0%} of them are the {copied[0]} of the prompt, as a copier's would be"
    found = part or _right_or_wrong(accuracy, limits, share, evidence, certain=certain)
    if found.name is None and texts is not None and texts.value >= limits.collision:
        found = replace(found, reason=found.reason + _SHARED)
    return found


def _right_or_wrong(
    accuracy: Estimate | None, limits: Thresholds, share: str, evidence: str, *, certain: bool
) -> Verdict:
    if accuracy is None:
        return Verdict(
            None,
            certain,
            f"Consistent ({share}) and not collapsed (the {evidence}); right or wrong needs gold answers.",
        )
    certain = certain and _clears(accuracy, limits.accuracy)
    right = accuracy.value >= limits.accuracy
    return Verdict(
        "consistent-correct" if right else "consistent-wrong",
        certain,
        f"On average {share}, the {evidence}, and {accuracy.value:.1%} of them are right.",
    )


def _copier(copied: tuple[str, Estimate], limits: Thresholds, share: str, *, certain: bool) -> Verdict:
    """The verdict on a model whose answers are copies from the prompt."""
    place, found = copied
    reason = (
        f"the {place} of the prompt is the answer to {found.value:.1%} of the prompts where another answer is right"
    )
    if found.value >= limits.copied:
        text = f"Although {share}, {reason}: a copier would do the same."
        return Verdict("collapsed", certain and _clears(found, limits.copied), text)
    return Verdict(
        "partly-collapsed", certain and _clears(found, limits.favourite), f"{reason[0].upper()}{reason[1:]}."
    )


def _partly(favourite: tuple[str, Estimate], limits: Thresholds, *, certain: bool, gold: bool) -> Verdict:
    """The verdict on a model that gives one answer to a part of the prompts; without gold it may be right there."""
    answer, share = favourite
    where = "where another answer is right" if gold else "while the other answers differ from prompt to prompt"
    reason = f"`{answer}` is the answer to {share.value:.1%} of the prompts {where}."
    return Verdict("partly-collapsed", certain and gold and _clears(share, limits.favourite), reason)


def _collapsed(
    information: Estimate, texts: Estimate | None, limits: Thresholds, yardstick: Yardstick
) -> tuple[bool, bool, str]:
    """Whether answers hardly depend on the question, whether that is certain, and the number behind it in words."""
    low, evidence = information.value < limits.information, f"answers carry {max(0.0, information.value):.0%} of the"
    evidence = f"{evidence} information that {_OF[yardstick]}"
    sure = _clears(information, limits.information)
    if texts is None:
        return low, sure, evidence
    varied = texts.value < limits.collision
    apart = _clears(texts, limits.collision)
    if low and varied:
        return False, apart, f"texts of two prompts are equal with probability {texts.value:.3f} only"
    return low, sure and (apart or not low), evidence


def _clears(estimate: Estimate, threshold: float) -> bool:
    interval = estimate.interval
    return interval is not None and not interval.low <= threshold <= interval.high
