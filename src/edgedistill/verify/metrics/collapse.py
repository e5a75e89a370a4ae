"""Audits whether a model's answers depend on the question, or whether it has collapsed to a few answers for everything.

With p_i the answer distribution on prompt i and pbar their mean, it computes the mutual information between prompt and
answer, the part of it that chance would give (permuted labels), how concentrated pbar is, and how often the answers of
different prompts coincide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.metrics.consistency import binary_bits
from edgedistill.verify.stats.cluster_intervals import (
    effective_number,
    jackknife_error,
    jackknife_interval,
    leave_out,
    number_of_error,
    share_interval,
)
from edgedistill.verify.stats.intervals import LEVEL, clopper_pearson_lower, clopper_pearson_upper, prompt_mean
from edgedistill.verify.types import Estimate, Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

PERMUTATIONS = 100
_LEAST_BITS = 0.05
_MANY = 5.0  # effective answers; of fewer, errors coincide by necessity


@dataclass(frozen=True, slots=True)
class Collapse:
    """What the audit finds on prompts whose gold answers differ.

    Attributes:
        information_bits: I(prompt; answer) = H(pbar) - mean_i H(p_i), less its mean under permuted labels; jackknife
            interval over prompts.
        permuted_bits: That mean: what chance and the number of samples give by themselves.
        gold_bits: H(gold): what a model that is always right would show. Without gold answers log2 of the prompts.
        ratio: information_bits over the same of the right answers (gold_bits less what permuted labels give of them),
            with a jackknife interval over prompts. 0: the answer says nothing about the prompt; 1: as much as the right
            one. Without the second correction a perfect model with few samples would seem to know little.
        top_share: max_a pbar(a). ``top_answer``: its code. Its interval allows for having picked the largest of all:
            the lower end is exact for every answer at once (Bonferroni), the upper one is the highest of any answer's.
        effective_answers: 2^H(pbar), biased low where there are few samples; ``effective_gold``: 2^H(gold). Jackknife
            interval on the scale of bits. Where all samples are equal, its upper end is what prompts that were not
            asked could add, if they had answers as varied as the gold ones.
        off_prompt_collision: Mean over i != j of sum_a p_i(a) p_j(a): how often two prompts get the same answer.
            Interval from the jackknife error of this U-statistic; where no prompts collide, or all do, what prompts
            that were not asked could change.
        gold_collision: The same of the gold answers.
        favourite, favourite_share: Code and share of the answer that is most often given where another one is right;
            without gold the most frequent answer, if the others differ from prompt to prompt. None if there are so few
            right answers that errors have to coincide (fewer than 5 effective answers).
        garbage: Mean share of samples without an answer; here they are one class, without information on a prompt.

    Intervals are over prompts: the values that suites of as many prompts of this kind would show.
    """

    information_bits: Estimate
    permuted_bits: float
    gold_bits: float
    ratio: Estimate
    top_share: Estimate
    top_answer: int
    effective_answers: Estimate
    effective_gold: float
    off_prompt_collision: Estimate
    gold_collision: float
    garbage: Estimate
    favourite: int | None = None
    favourite_share: Estimate | None = None


def collapse_audit(
    prompts: Sequence[Codes],
    gold: Sequence[int] | None = None,
    *,
    level: float = LEVEL,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
    own_labels: bool = False,
) -> Collapse:
    """Audit one model on the prompts of a suite.

    Args:
        prompts: Per prompt int64 [samples]: answer codes of one codebook, below 0 for garbage.
        gold: Code of each prompt's gold answer; None: every prompt counts as having an answer of its own.
        seed: Of the permutations.
        own_labels: Without gold, answers may be labels that many prompts share. Their information is then compared with
            what labels of the same frequencies would carry if each prompt always had the same one. Of a model that
            gives one answer only, nothing can be said that way: every prompt counts as having its own.

    Raises:
        VerifyError: fewer than 2 prompts, a prompt without samples, or gold answers that are all the same.
    """
    if len(prompts) < 2 or min(codes.size for codes in prompts) == 0:
        raise VerifyError("The audit of collapse needs at least 2 prompts, and a sample of each.")
    wanted = np.arange(len(prompts)) if gold is None else np.asarray(gold, np.int64)
    # Garbage becomes one more class, 0; answers move up by one. Codes are made dense.
    values, labels = np.unique(np.concatenate([np.maximum(codes, -1) for codes in prompts]), return_inverse=True)
    sizes = np.array([codes.size for codes in prompts])
    owners = np.repeat(np.arange(len(prompts)), sizes)
    p = _distributions(owners, labels, len(prompts), len(values), sizes)
    if gold is None and own_labels:
        wanted = _labels_of_frequencies(p[:, values >= 0])
    gold_p = np.bincount(wanted)[np.unique(wanted)] / wanted.size
    gold_bits = _bits(gold_p)
    if gold_bits <= 0:
        raise VerifyError("All gold answers are the same, so a constant answer would be right; no audit is possible.")
    chance = _chance_bits(owners, labels, sizes, seed, permutations)
    # What the right answers themselves would lose by this correction: with few samples a prompt it is much. The same
    # permutations, so that a model that is always right has a ratio of 1 and not one that is off by their noise.
    gold_chance = _chance_bits(
        owners, np.repeat(np.unique(wanted, return_inverse=True)[1], sizes), sizes, seed, permutations
    )
    if gold_bits - gold_chance < _LEAST_BITS:
        raise VerifyError(
            f"With {sizes.max()} sample(s) a prompt chance alone would look like information; no audit is possible.",
            hint="Use --samples 4 or more.",
        )
    information = information_bits(p) - chance
    kept = list(leave_out(np.arange(len(p))))
    # The parts of chance are taken as known.
    parts = [information_bits(p[rows]) - chance for rows in kept]
    right = [_gold_bits(wanted[rows]) - gold_chance for rows in kept]
    ratios = [part / most if most > 0 else math.nan for part, most in zip(parts, right, strict=True)]
    scale, unseen = gold_bits - gold_chance, _unseen(len(p), gold_bits, level)
    answered = values >= 0
    top, top_share = _top_share(p[:, answered], sizes, level)
    known = None if gold is None else wanted
    liked = (
        _favourite(p[:, answered], values[answered], known, sizes, level) if gold is not None or own_labels else None
    )
    return Collapse(
        information_bits=_known(information, parts, scale, unseen, level),
        permuted_bits=chance,
        gold_bits=gold_bits,
        ratio=_known(information / scale, ratios, 1.0, (unseen[0], unseen[1] / scale), level),
        top_share=top_share,
        top_answer=int(values[answered][top]) if answered.any() else int(values[0]),
        effective_answers=_effective(p, kept, unseen[1], level),
        effective_gold=2**gold_bits,
        off_prompt_collision=_collisions(p[:, answered], kept, level),
        gold_collision=float((wanted.size * (gold_p**2).sum() - 1) / (wanted.size - 1)),
        garbage=prompt_mean(p[:, ~answered].sum(axis=1), low=0.0, high=1.0, level=level, seed=seed),
        favourite=None if liked is None else liked[0],
        favourite_share=None if liked is None else liked[1],
    )


def _labels_of_frequencies(p: Floats) -> Codes:
    """A label for every prompt, int64 [prompts], with the frequencies of the answers (largest remainders) and close to
    the prompt's most frequent one; a different label for each prompt if all answers are the same.
    """
    own, mass = np.arange(len(p)), p.sum(axis=0)
    if np.count_nonzero(mass) < 2:
        return own
    parts = mass / mass.sum() * len(p)
    counts = np.floor(parts).astype(np.int64)
    counts[np.argsort(counts - parts, kind="stable")[: len(p) - counts.sum()]] += 1
    if np.count_nonzero(counts) < 2:  # some samples gave another answer, no prompt did
        return own
    labels = np.empty(len(p), np.int64)
    labels[np.argsort(p.argmax(axis=1), kind="stable")] = np.repeat(np.arange(len(counts)), counts)
    return labels


def _favourite(
    p: Floats, answers: Codes, gold: Codes | None, sizes: Codes, level: float
) -> tuple[int, Estimate] | None:
    """The answer that is most often given where it is wrong (without gold: most often at all), and its share; None if
    there are so few right answers that errors have to coincide.
    """
    if not p.shape[1]:
        return None
    if gold is not None:
        if 2.0 ** _gold_bits(gold) < _MANY:
            return None
        p = np.where(answers == gold[:, None], 0.0, p)
        top, share = _top_share(p, sizes, level)
        return int(answers[top]), share
    top, share = _top_share(p, sizes, level)
    others = np.delete(p.mean(axis=0), top)
    rest = float(others.sum())
    if rest <= 0 or 2.0 ** _bits(others / rest) < max(_MANY, 0.5 * rest * len(p)):
        return None
    return int(answers[top]), share


def _chance_bits(owners: Codes, labels: Codes, sizes: Codes, seed: int, permutations: int) -> float:
    """Mean information under permuted labels; 0 without permutations."""
    kinds, rng = int(labels.max()) + 1, np.random.default_rng(seed)
    bits = [
        information_bits(_distributions(owners, rng.permutation(labels), len(sizes), kinds, sizes))
        for _ in range(permutations)
    ]
    return float(np.mean(bits)) if bits else 0.0


def information_bits(p: Floats) -> float:
    """I(prompt; answer) in bits of [prompts, answers], rows being distributions of equal weight."""
    return _bits(p.mean(axis=0)) - float(np.mean([_bits(row) for row in p]) if len(p) < 2 else _row_bits(p).mean())


def _row_bits(p: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(-np.where(p > 0, p * np.log2(p), 0.0).sum(axis=1))


def _bits(p: Floats) -> float:
    positive = p[p > 0]
    return float(-(positive * np.log2(positive)).sum()) + 0.0


def _distributions(owners: Codes, labels: Codes, prompts: int, kinds: int, sizes: Codes) -> Floats:
    counts = np.bincount(owners * kinds + labels, minlength=prompts * kinds).reshape(prompts, kinds)
    return np.asarray(counts / sizes[:, None], np.float64)


def _collision(p: Floats) -> float:
    """Mean of the inner products of different rows."""
    count = len(p)
    total = p.sum(axis=0)
    return float((total @ total - (p * p).sum()) / (count * (count - 1)))


def _known(value: float, left_out: Sequence[float], most: float, unseen: tuple[float, float], level: float) -> Estimate:
    """``value`` with a jackknife interval; if prompts do not differ, with what unseen prompts could take away or add,
    up to ``most``.
    """
    found = jackknife_interval(value, left_out, level=level)
    if found is None and math.isfinite(jackknife_error(left_out)):
        share, added = unseen
        high = min(max(most, value), value + added)
        found = Interval(value - share * max(0.0, value), high, level, "unseen prompts")
    return Estimate(value, found)


def _unseen(prompts: int, gold_bits: float, level: float) -> tuple[float, float]:
    """Of prompts that all behave alike: the largest share (exact, one-sided) that could behave otherwise, and the most
    bits that these add to the answers' entropy if they are as varied as the gold answers.
    """
    share = clopper_pearson_upper(0, prompts, level)
    return share, binary_bits(min(share, 0.5)) + share * gold_bits


def _gold_bits(wanted: Codes) -> float:
    counts = np.bincount(wanted)
    return _bits(counts[counts > 0] / wanted.size)


def _top_share(p: Floats, sizes: Codes, level: float) -> tuple[int, Estimate]:
    """Which answer is the most frequent, and its share."""
    if not p.shape[1]:
        return 0, Estimate(0.0, share_interval(0.0, len(p), level))
    shares, weights = p.mean(axis=0), sizes.astype(np.float64)
    residuals = (p - shares) / len(p)

    def ends(answer: int, level: float) -> Interval:
        share = float(shares[answer])
        return share_interval(share, effective_number(share, residuals[:, answer], weights, level), level)

    top = int(shares.argmax())
    low = ends(top, 1 - (1 - level) / p.shape[1]).low
    # Only answers that come near may be the most frequent one in truth; one of each sort is enough: there may be
    # thousands that a single sample gave.
    near = np.flatnonzero(shares >= low)
    sorts = np.stack([shares[near], (residuals[:, near] ** 2).sum(axis=0), (residuals[:, near] ** 4).sum(axis=0)])
    one_of_each = near[np.unique(sorts.round(14), axis=1, return_index=True)[1]]
    high = max(ends(int(answer), level).high for answer in one_of_each)
    return top, Estimate(float(shares[top]), Interval(low, high, level, "Clopper-Pearson, of all answers"))


def _effective(p: Floats, kept: Sequence[npt.NDArray[np.bool_]], added: float, level: float) -> Estimate:
    bits = _bits(p.mean(axis=0))
    if bits == 0.0:
        return Estimate(1.0, Interval(1.0, 2**added, level, "unseen prompts"))
    found = jackknife_interval(bits, [_bits(p[rows].mean(axis=0)) for rows in kept], low=0.0, level=level)
    return Estimate(2**bits, None if found is None else Interval(2**found.low, 2**found.high, level, found.method))


def _collisions(p: Floats, kept: Sequence[npt.NDArray[np.bool_]], level: float) -> Estimate:
    value = _collision(p)
    error = jackknife_error([_collision(p[rows]) for rows in kept if rows.sum() > 1])
    if not (error > 0 and 0.0 < value < 1.0):
        # No two prompts coincide: of all ways to do so that such a finding allows, most often where they all do in one
        # answer, and then at most one of the prompts has it. All coincide: at most a share of them might not.
        high = clopper_pearson_upper(1, len(p), level) ** 2 if value == 0.0 else 1.0
        low = clopper_pearson_lower(len(p), len(p), level) ** 2 if value == 1.0 else 0.0
        return Estimate(value, Interval(low, high, level, "unseen prompts"))
    number = number_of_error(value, error**2, len(kept) - 1, level)
    return Estimate(value, share_interval(value, min(number, len(p) * (len(p) - 1) / 2), level))
