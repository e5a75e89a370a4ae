"""The audit of the sampler begins small, says how far it is, and grows only where little choice is left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.runtime.sampling import NoiseSource, choose
from edgedistill.verify.models.sampler_check import SHORT, WHOLE, check_sampler
from edgedistill.verify.stats.sampler_audit import DRAWS
from edgedistill.verify.types import Drawn, Message, ModelIdentity, Prompt, Sample

VOCABULARY = 50_000
audited: Any = check_sampler
PROMPTS = [Prompt(f"p{i}", (Message("user", "x"),)) for i in range(8)]


@dataclass
class OneDistribution:
    """A model whose every token comes from one row of logits of a large vocabulary."""

    logits: np.ndarray
    noise: Any = field(default_factory=NoiseSource)
    tokens: int = 0
    identity = ModelIdentity("bundle", "tiny", "0" * 64, "1" * 64, VOCABULARY)
    can_draw = can_score = True

    def draw(self, prompts: Any, samples: int, settings: DrawSettings, **_: Any) -> Iterator[Drawn]:
        for prompt in prompts:
            keys = self.noise.keys(settings.seed, prompt.id, range(samples))
            for index in range(samples):
                count = settings.max_new_tokens
                rows = np.broadcast_to(self.logits, (count, VOCABULARY))
                positions = np.arange(count)
                ids = choose(rows, settings.generation, np.repeat(keys[index], count), positions)
                self.tokens += count
                sample = Sample(prompt.id, index, "parsed", "1", "", count, 0, False, 0.0, None)
                yield Drawn(sample, tuple(ids.tolist()), "length")

    def score(self, prompt: Any, sequences: Any, slices: Any, **_: Any) -> Iterator[np.ndarray]:
        for part in slices:
            yield np.broadcast_to(self.logits, (part.stop - part.start, VOCABULARY))


class SeedIgnored:
    def keys(self, seed: int, prompt_id: str, indices: Any) -> np.ndarray:
        return np.full(len(indices), 12345, dtype=np.uint64)


class Counted(NoiseSource):
    many = 0

    def keys(self, seed: int, prompt_id: str, indices: Any) -> Any:
        self.many += len(indices) if len(indices) > 10 else 0
        return super().keys(seed, prompt_id, indices)


class Recorded:
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.done = 0

    def begin(self, stage: str, total: int, unit: str) -> None:
        self.stages.append(stage)

    def advance(self, amount: int) -> None:
        self.done += amount

    def end(self) -> None:
        self.stages.append("end")


def spread_out() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, VOCABULARY).astype(np.float32)


def nearly_certain() -> np.ndarray:
    """One token has 99 %."""
    logits = np.full(VOCABULARY, -30, dtype=np.float32)
    logits[7], logits[8] = 0.0, np.log(0.01)
    return logits


def test_it_is_a_small_part_of_a_run_and_shows_where_it_is() -> None:
    model, progress = OneDistribution(spread_out()), Recorded()
    settings = DrawSettings(max_new_tokens=512)
    found = audited(model, PROMPTS, settings, replies=150 * 16, progress=progress)
    assert found.sound
    assert found.varies
    assert model.tokens < 0.02 * 150 * 16 * 60, "replies of 60 tokens are short"
    assert progress.stages == ["auditing the sampler of tiny", "end"]
    assert progress.done > 3


def test_a_small_run_has_a_smaller_one() -> None:
    model = OneDistribution(spread_out())
    assert audited(model, PROMPTS, DrawSettings(), replies=8).varies
    assert model.tokens <= 48


def test_it_grows_where_a_model_leaves_little_choice_and_a_run_is_long() -> None:
    model = OneDistribution(nearly_certain(), Counted())
    # At this temperature the other token has 1 in 2,000.
    assert audited(model, PROMPTS, DrawSettings(temperature=0.6), replies=5000).sound
    assert model.tokens > 3 * WHOLE.tokens * WHOLE.prompts
    assert model.noise.many == DRAWS, "of the replies that are judged, and of no shorter ones"


@pytest.mark.parametrize("replies", [8, 320, 2400, 20_000])
@pytest.mark.parametrize("temperature", [0.02, 0.1, 0.2])
def test_a_model_without_choice_makes_it_no_larger_part_of_a_run(replies: int, temperature: float) -> None:
    """However cold: whole replies of every seed are the same ones, of whatever length."""
    model = OneDistribution(nearly_certain())
    settings = DrawSettings(temperature=temperature, max_new_tokens=512)
    found = audited(model, PROMPTS, settings, replies=replies)
    assert found.sound
    assert found.varies is None, "there is nothing by which seeds could be told apart, which is said"
    assert model.tokens <= max(SHORT.most, 0.01 * replies * 64)


@pytest.mark.parametrize("logits", [spread_out(), nearly_certain()])
def test_a_sampler_without_seeds_is_found_at_any_size(logits: np.ndarray) -> None:
    for replies in (8, 5000):
        model = OneDistribution(logits, SeedIgnored())
        found = audited(model, PROMPTS, DrawSettings(temperature=1.0), replies=replies)
        assert not found.sound
