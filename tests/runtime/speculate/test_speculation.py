"""Guesses change how many tokens a step computes, and nothing of what is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from runtime_support import CONTEXT

from edgedistill.bundle.bundle import Bundle
from edgedistill.errors import GenerationError
from edgedistill.runtime.generate import TokenLoop
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.sampling import NoiseKey, Sampler
from edgedistill.runtime.settings import GenerationSettings, Numerics
from edgedistill.runtime.speculate.control import WIDTHS, DraftControl, StepCosts
from edgedistill.runtime.speculate.speculation import Speculation, speculation

GREEDY = GenerationSettings(max_new_tokens=40, ignore_eos=True)
SAMPLED = {
    "greedy": GREEDY,
    "sampled": GREEDY.replace(temperature=0.9, seed=3),
    "filtered": GREEDY.replace(temperature=1.2, top_p=0.9, top_k=30, seed=4),
    "min_p": GREEDY.replace(temperature=1.5, min_p=0.05, seed=5),
    "penalty": GREEDY.replace(temperature=1.0, repetition_penalty=1.3, seed=6),
    "greedy penalty": GREEDY.replace(repetition_penalty=1.5),
}


@pytest.fixture(scope="module", params=["fp32", "int4-b32", "int8-b32"])
def model(request: pytest.FixtureRequest, tiny_bundle: Callable[[str], Path]) -> Iterator[Model]:
    with open_bundle(tiny_bundle(request.param), threads=1) as opened:
        yield opened


class _Guesser:
    """Guesses the known text, spoilt at random."""

    seconds_per_guess = 0.0
    decoder = None

    def __init__(self, text: Sequence[int], spoilt: float, rng: np.random.Generator) -> None:
        self._text, self._spoilt, self._rng = [*text, *[0] * 20], spoilt, rng
        self._at = 0

    def extend(self, tokens: Sequence[int]) -> None:
        self._at += len(tokens)

    def confidence(self) -> int:
        return 1

    def propose(self, count: int) -> list[int]:
        guesses = np.array(self._text[self._at : self._at + count])
        wrong = self._rng.random(len(guesses)) < self._spoilt
        return np.where(wrong, (guesses + 1) % 300, guesses).tolist()


class _AnyWidth(DraftControl):
    """Guesses as many as chance has it."""

    def __init__(self, rng: np.random.Generator) -> None:
        costs = StepCosts(1)
        costs.record(1, 1.0)
        super().__init__(costs)
        self._rng = rng

    def guesses(self, confidence: int, room: int, price: float = 0.0) -> int:
        fitting = [width - 1 for width in WIDTHS if width - 1 <= room]
        return int(self._rng.choice([0, *fitting]))


def _write(
    model: Model, prompt: list[int], settings: GenerationSettings, numerics: Numerics, guesses: Speculation | None
) -> tuple[list[int], list[bytes], TokenLoop, int]:
    """Tokens, the logits that each was drawn from, the loop, and the length of the cache at the end."""
    decoder = model.session.decoder()
    info = model.bundle.manifest.model
    seen: list[bytes] = []
    loop = TokenLoop(
        decoder, Sampler(settings, NoiseKey.of(settings.seed or 0), vocab_size=info.vocab_size), settings,
        context_length=info.context_length, eos=info.eos_token_ids, numerics=numerics,
        on_choice=lambda logits, _token: seen.append(logits.tobytes()), speculation=guesses,
    )  # fmt: skip
    for _ in loop.prefill(prompt, chunk=16):
        pass
    return list(loop), seen, loop, decoder.length


@pytest.mark.parametrize("name", SAMPLED)
def test_under_exact_numerics_no_bit_changes(model: Model, name: str) -> None:
    settings = SAMPLED[name]
    prompt = model.encode(model.render("What is 12 + 30?"))
    tokens, logits, plain, length = _write(model, prompt, settings, "exact", None)
    for seed, spoilt in enumerate((0.0, 0.3, 1.0)):
        rng = np.random.default_rng(seed)
        guesses = Speculation(_Guesser([*prompt, *tokens], spoilt, rng), _AnyWidth(rng))
        found, bits, loop, held = _write(model, prompt, settings, "exact", guesses)
        assert found == tokens
        assert bits == logits
        assert held == length
        assert loop.finish_reason == plain.finish_reason
        assert guesses.drafted > 0
        assert (guesses.accepted > 0) == (spoilt < 1)
        if spoilt == 0.0:
            assert guesses.accepted == guesses.drafted
            assert len(loop.step_watch.laps) < len(plain.step_watch.laps)


def test_up_to_the_end_of_the_context(model: Model) -> None:
    for rest in range(1, 20):
        prompt = (model.encode(model.render("What is 12 + 30?")) * 9)[: CONTEXT - rest]
        tokens, logits, plain, length = _write(model, prompt, GREEDY, "exact", None)
        rng = np.random.default_rng(rest)
        guesses = Speculation(_Guesser([*prompt, *tokens], 0.2, rng), _AnyWidth(rng))
        found, bits, loop, held = _write(model, prompt, GREEDY, "exact", guesses)
        assert (found, bits, loop.finish_reason, held) == (tokens, logits, plain.finish_reason, length)


def test_an_end_of_sequence_token_among_the_guesses_ends_the_text(fp32: Model) -> None:
    prompt = fp32.encode(fp32.render("hi"))
    tokens, *_ = _write(fp32, prompt, GREEDY, "exact", None)
    info = fp32.bundle.manifest.model
    for place in range(1, 12):
        settings = GREEDY.replace(ignore_eos=False)
        decoder = fp32.session.decoder()
        rng = np.random.default_rng(place)
        loop = TokenLoop(
            decoder, Sampler(settings, NoiseKey.of(0), vocab_size=info.vocab_size), settings,
            context_length=info.context_length, eos=[tokens[place]], numerics="exact",
            speculation=Speculation(_Guesser([*prompt, *tokens], 0.0, rng), _AnyWidth(rng)),
        )  # fmt: skip
        for _ in loop.prefill(prompt, chunk=16):
            pass
        found = list(loop)
        assert found == tokens[: tokens.index(tokens[place]) + 1]
        assert loop.finish_reason == "stop"
        assert decoder.length == len(prompt) + len(found) - 1


def test_greedy_text_of_full_precision_is_the_same_on_the_fast_path(fp32: Model) -> None:
    prompt = fp32.encode(fp32.render("What is 12 + 30?"))
    tokens, *_ = _write(fp32, prompt, GREEDY, "fast", None)
    rng = np.random.default_rng(0)
    guesses = Speculation(_Guesser([*prompt, *tokens], 0.2, rng), _AnyWidth(rng))
    assert _write(fp32, prompt, GREEDY, "fast", guesses)[0] == tokens
    assert guesses.accepted > 0


def test_guessed_tokens_of_the_fast_path_come_from_the_logits_of_a_prefill(tiny_bundle: Callable[[str], Path]) -> None:
    """What docs/explanation/numerical-paths.md says of it."""
    with open_bundle(tiny_bundle("int4-b32"), threads=1) as model:
        prompt = model.encode(model.render("What is 12 + 30?"))
        decoder = model.session.decoder()
        decoder.feed(prompt, exact=True)
        text = [5, 6, 7, 8]
        together = decoder.feed_all(text).copy()
        whole = model.session.decoder()
        for part in whole.score(np.array([[*prompt, *text]]), chunk=64):
            assert np.array_equal(part.logits[-4:], together)


def test_a_consumer_that_stops_leaves_the_cache_at_what_it_took(fp32: Model) -> None:
    prompt = fp32.encode(fp32.render("hi"))
    tokens, *_ = _write(fp32, prompt, GREEDY, "exact", None)
    info = fp32.bundle.manifest.model
    for taken in range(1, 20):
        decoder = fp32.session.decoder()
        rng = np.random.default_rng(taken)
        loop = TokenLoop(
            decoder, Sampler(GREEDY, NoiseKey.of(0), vocab_size=info.vocab_size), GREEDY,
            context_length=info.context_length, eos=(), numerics="exact",
            speculation=Speculation(_Guesser([*prompt, *tokens], 0.0, rng), _AnyWidth(rng)),
        )  # fmt: skip
        for _ in loop.prefill(prompt, chunk=16):
            pass
        given = iter(loop)
        assert [next(given) for _ in range(taken)] == tokens[:taken]
        given.close()  # type: ignore[attr-defined]
        assert decoder.length == len(prompt) + taken - 1
        assert decoder.cached(exact=True).tolist() == [*prompt, *tokens][: len(prompt) + taken - 1]


def test_the_whole_way_through_the_model(model: Model) -> None:
    settings = GREEDY.replace(temperature=0.8, seed=2, max_new_tokens=60)
    question = "0123456789 0123456789 0123456789"
    plain = model.generate(question, settings=settings, numerics="exact", speculate="off", logprobs=2)
    assert plain.stats.drafted_tokens == 0
    for wanted in ("auto", "identical", 1, 3):
        found = model.generate(question, settings=settings, numerics="exact", speculate=wanted, logprobs=2)
        assert found.tokens == plain.tokens
        assert found.text == plain.text
        assert found.logprobs == plain.logprobs
        assert found.stats.kv_tokens == plain.stats.kv_tokens
        assert 0 <= found.stats.accepted_tokens <= found.stats.drafted_tokens
    stop = plain.text[5:8]
    stopped = model.generate(question, settings=settings, numerics="exact", speculate="auto", stop=stop)
    assert (
        stopped.text == model.generate(question, settings=settings, numerics="exact", speculate="off", stop=stop).text
    )
    assert stopped.finish_reason == "stop_string"


def test_a_conversation_with_guesses_keeps_its_cache(model: Model) -> None:
    with (
        model.chat(numerics="exact", max_new_tokens=12, seed=1, speculate="off") as plain,
        model.chat(numerics="exact", max_new_tokens=12, seed=1, speculate="auto") as guessing,
    ):
        for question in ("hi", "hi", "hi"):
            a, b = plain.ask(question), guessing.ask(question)
            assert a.tokens == b.tokens
            assert a.stats.cached_tokens == b.stats.cached_tokens


def test_where_guesses_are_made_by_default() -> None:
    settings = GenerationSettings()
    assert settings.speculate == "identical"
    assert speculation(settings, "fast", {}) is None
    assert speculation(settings, "exact", {}) is not None
    assert speculation(settings.replace(speculate="off"), "exact", {}) is None
    assert speculation(settings.replace(speculate="auto"), "fast", {}) is not None
    assert speculation(settings.replace(speculate=4), "fast", {}) is not None
    costs: dict[Numerics, StepCosts] = {}
    speculation(settings, "exact", costs)
    kept = costs["exact"]
    speculation(settings, "exact", costs)
    assert costs["exact"] is kept


@pytest.mark.parametrize("wrong", ["on", "", 0, 16, -1, True, 1.5, None, "4"])
def test_settings_out_of_range(wrong: object) -> None:
    with pytest.raises(GenerationError, match=r"speculate is .*; expected auto, off, identical or a number"):
        GenerationSettings(speculate=wrong)  # type: ignore[arg-type]


def test_a_bundle_says_what_is_the_default(tiny_bundle: Callable[[str], Path]) -> None:
    bundle = Bundle.open(tiny_bundle("fp32"))
    settings = GenerationSettings.from_defaults({**bundle.generation, "speculate": "auto"})
    assert settings.speculate == "auto"
    assert json.loads(json.dumps(settings.to_dict()))["speculate"] == "auto"
