"""Does the model answer the question, or does it answer the same whatever is asked?

With p_i the answer distribution on prompt i and pbar their mean: the mutual information between prompt and answer, what
chance alone would give of it (labels permuted), how concentrated pbar is, how often answers of different prompts
coincide.

Must not know: texts, tokens, thresholds of a verdict (``verdict``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import VerifyError
from edgedistill.verify.intervals import LEVEL
from edgedistill.verify.special import normal_quantile
from edgedistill.verify.types import Estimate, Interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Codes = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]

PERMUTATIONS = 100
_GROUPS = 20
_LEAST_BITS = 0.05


@dataclass(frozen=True, slots=True)
class Collapse:
    """What the audit finds on prompts whose gold answers differ.

    Attributes:
        information_bits: I(prompt; answer) = H(pbar) - mean_i H(p_i), less its mean under permuted labels.
        permuted_bits: That mean: what chance and the number of samples give by themselves.
        gold_bits: H(gold): what a model that is always right would show. Without gold answers log2 of the prompts.
        ratio: information_bits over the same of the right answers (gold_bits less what permuted labels give of them),
            with a jackknife interval over prompts. 0: the answer says nothing about the prompt; 1: as much as the right
            one. Without the second correction a perfect model with few samples would seem to know little.
        top_share: max_a pbar(a). ``top_answer``: its code.
        effective_answers: 2^H(pbar); ``effective_gold``: 2^H(gold).
        off_prompt_collision: Mean over i != j of sum_a p_i(a) p_j(a): how often two prompts get the same answer.
        gold_collision: The same of the gold answers.
        garbage: Mean share of samples without an answer; they are one class here, which tells nothing about a prompt.
    """

    information_bits: float
    permuted_bits: float
    gold_bits: float
    ratio: Estimate
    top_share: float
    top_answer: int
    effective_answers: float
    effective_gold: float
    off_prompt_collision: float
    gold_collision: float
    garbage: float


def collapse_audit(
    prompts: Sequence[Codes],
    gold: Sequence[int] | None = None,
    *,
    level: float = LEVEL,
    seed: int = 0,
    permutations: int = PERMUTATIONS,
) -> Collapse:
    """Audit one model on the prompts of a suite.

    Args:
        prompts: Per prompt int64 [samples]: answer codes of one codebook, below 0 for garbage.
        gold: Code of each prompt's gold answer; None: every prompt counts as having an answer of its own.
        seed: Of the permutations.

    Raises:
        VerifyError: fewer than 2 prompts, a prompt without samples, or gold answers that are all the same.
    """
    if len(prompts) < 2 or min(codes.size for codes in prompts) == 0:
        raise VerifyError("the audit of collapse needs at least 2 prompts, and a sample of each.")
    wanted = np.arange(len(prompts)) if gold is None else np.asarray(gold, np.int64)
    gold_p = np.bincount(wanted)[np.unique(wanted)] / wanted.size
    gold_bits = _bits(gold_p)
    if gold_bits <= 0:
        raise VerifyError("all gold answers are the same, so a constant answer would be right; no audit is possible.")
    # Garbage becomes one more class, 0; answers move up by one. Codes are made dense.
    values, labels = np.unique(np.concatenate([np.maximum(codes, -1) for codes in prompts]), return_inverse=True)
    sizes = np.array([codes.size for codes in prompts])
    owners = np.repeat(np.arange(len(prompts)), sizes)
    p = _distributions(owners, labels, len(prompts), len(values), sizes)
    rng = np.random.default_rng(seed)
    chance = _chance_bits(owners, labels, sizes, rng, permutations)
    # What the right answers themselves would lose by this correction: with few samples a prompt it is much.
    gold_chance = _chance_bits(
        owners, np.repeat(np.unique(wanted, return_inverse=True)[1], sizes), sizes, rng, permutations
    )
    if gold_bits - gold_chance < _LEAST_BITS:
        raise VerifyError(
            f"with {sizes.max()} sample(s) a prompt chance alone would look like information; no audit is possible.",
            hint="Use --samples 4 or more.",
        )
    information = information_bits(p) - chance
    ratio, error = information / (gold_bits - gold_chance), _jackknife_error(p, wanted, chance, gold_chance)
    half = normal_quantile(0.5 + level / 2) * error
    interval = Interval(ratio - half, ratio + half, level, "jackknife over prompts")
    answered = np.where(values >= 0, p.mean(axis=0), -1.0)
    return Collapse(
        information_bits=information,
        permuted_bits=chance,
        gold_bits=gold_bits,
        ratio=Estimate(ratio, interval),
        top_share=max(0.0, float(answered.max())),
        top_answer=int(values[answered.argmax()]),
        effective_answers=2 ** _bits(p.mean(axis=0)),
        effective_gold=2**gold_bits,
        off_prompt_collision=_collision(p[:, values >= 0]),
        gold_collision=float((wanted.size * (gold_p**2).sum() - 1) / (wanted.size - 1)),
        garbage=float(p[:, values < 0].sum() / len(prompts)),
    )


def _chance_bits(owners: Codes, labels: Codes, sizes: Codes, rng: np.random.Generator, permutations: int) -> float:
    """Mean information under permuted labels; 0 without permutations."""
    kinds = int(labels.max()) + 1
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


def _jackknife_error(p: Floats, wanted: Codes, chance: float, gold_chance: float) -> float:
    """Standard error of the ratio, from leaving out groups of prompts; the parts of chance are taken as known."""
    groups = min(_GROUPS, len(p))
    member = np.arange(len(p)) % groups
    ratios = []
    for group in range(groups):
        kept = member != group
        gold = np.bincount(wanted[kept])
        bits = _bits(gold[gold > 0] / kept.sum())
        ratios.append((information_bits(p[kept]) - chance) / (bits - gold_chance) if bits > gold_chance else math.nan)
    values = np.array([ratio for ratio in ratios if math.isfinite(ratio)])
    if values.size < 2:
        return math.nan
    return math.sqrt((values.size - 1) / values.size * float(((values - values.mean()) ** 2).sum()))
