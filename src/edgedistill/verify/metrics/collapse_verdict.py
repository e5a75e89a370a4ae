"""One word for a model on a suite: consistent-correct, consistent-wrong, collapsed, deterministic-decoding, diffuse.

Low entropy with low mutual information is collapse: a model that says the same whatever it is asked agrees with itself
perfectly. Higher consistency never passes by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from edgedistill.verify.types import Estimate

VerdictName = Literal["consistent-correct", "consistent-wrong", "collapsed", "deterministic-decoding", "diffuse"]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """``agreement``: mean agreement C from which a model counts as consistent. ``information``: share of the gold
    answers' information below which its answers do not depend on the question. ``accuracy``: from which consistent
    answers count as correct. ``collision``: where texts take the place of answers, the probability that two prompts get
    the same text below which they are too varied for a verdict of collapse.
    """

    agreement: float = 0.5
    information: float = 0.5
    accuracy: float = 0.5
    collision: float = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """The word, whether the intervals of all numbers it rests on clear their thresholds, and the reason in a sentence.

    ``name`` is None where a consistent model cannot be called right or wrong for lack of gold answers.
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
    gold: bool = True,
    thresholds: Thresholds | None = None,
) -> Verdict:
    """Name the state of a model.

    Args:
        agreement: Mean over prompts of C.
        information: Ratio of the mutual information to that of the gold answers (``collapse.Collapse.ratio``).
        accuracy: Share of right answers; None without gold.
        deterministic: Decoding left no choice (temperature 0 or top_k 1): consistency is then no property of the model.
        texts: Where the information is that of texts, not of the answers whose agreement is given: the probability that
            two prompts get the same text. Texts that are all different carry no information that could be told from
            chance, and are no collapse.
        gold: Whether the information is compared with that of gold answers, or of an answer of its own to each prompt.
    """
    limits = thresholds or Thresholds()
    if deterministic:
        return Verdict(
            "deterministic-decoding",
            True,
            "Decoding was deterministic, so that every model agrees with itself; consistency was not scored.",
        )
    consistent = agreement.value >= limits.agreement
    certain = _clears(agreement, limits.agreement)
    share = f"two samples agree with probability {agreement.value:.3f}"
    collapsed, sure, told = _collapsed(information, texts, limits, gold=gold)
    if not consistent:
        also = f"; the {told}, so that they hardly depend on the question either" if collapsed and sure else ""
        return Verdict("diffuse", certain, f"On average {share}, less than {limits.agreement:g}{also}.")
    certain = certain and sure
    if collapsed:
        return Verdict("collapsed", certain, f"Although {share}, the {told}: they hardly depend on the question.")
    if accuracy is None:
        return Verdict(
            None, certain, f"Consistent ({share}) and not collapsed (the {told}); right or wrong needs gold answers."
        )
    certain = certain and _clears(accuracy, limits.accuracy)
    right = accuracy.value >= limits.accuracy
    return Verdict(
        "consistent-correct" if right else "consistent-wrong",
        certain,
        f"On average {share}, the {told}, and {accuracy.value:.1%} of them are right.",
    )


def _collapsed(
    information: Estimate, texts: Estimate | None, limits: Thresholds, *, gold: bool
) -> tuple[bool, bool, str]:
    """Whether answers hardly depend on the question, whether that is certain, and what shows it."""
    of = "the right ones" if gold else "one of its own to each prompt"
    low, told = information.value < limits.information, f"answers carry {max(0.0, information.value):.0%} of the"
    told = f"{told} information that {of} would"
    sure = _clears(information, limits.information)
    if texts is None:
        return low, sure, told
    varied = texts.value < limits.collision
    apart = _clears(texts, limits.collision)
    if low and varied:
        return False, apart, f"texts of two prompts are equal with probability {texts.value:.3f} only"
    return low, sure and (apart or not low), told


def _clears(estimate: Estimate, threshold: float) -> bool:
    interval = estimate.interval
    return interval is not None and not interval.low <= threshold <= interval.high
