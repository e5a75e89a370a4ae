"""A second bundle guesses: nothing of what is written changes, and where it does not pay it is hardly asked."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgedistill.bundle.bundle import TOKENIZER, file_entry
from edgedistill.errors import UsageError
from edgedistill.runtime.generate import TokenLoop
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.sampling import NoiseKey, Sampler
from edgedistill.runtime.settings import GenerationSettings, Numerics
from edgedistill.runtime.speculate.control import DraftControl, StepCosts
from edgedistill.runtime.speculate.lookup import TOP_CONFIDENCE
from edgedistill.runtime.speculate.speculation import Speculation

GREEDY = GenerationSettings(max_new_tokens=40, ignore_eos=True)
SAMPLED = {
    "greedy": GREEDY,
    "sampled": GREEDY.replace(temperature=0.9, seed=3),
    "filtered": GREEDY.replace(temperature=1.2, top_p=0.9, top_k=30, seed=4),
    "penalty": GREEDY.replace(temperature=1.0, repetition_penalty=1.3, seed=6),
}


class _Three(DraftControl):
    """Guesses three tokens wherever there is room."""

    def guesses(self, confidence: int, room: int, price: float = 0.0) -> int:
        assert confidence
        assert price > 0
        return 3 if room >= 3 else 0


@pytest.fixture(scope="module", params=["fp32", "int4-b32"])
def drafted(request: pytest.FixtureRequest, tiny_bundle: Callable[[str], Path]) -> Iterator[Model]:
    """A model in int8 with a draft: its own original, or the same in fewer bits."""
    with open_bundle(tiny_bundle("int8-b32"), threads=1, draft=tiny_bundle(request.param)) as model:
        yield model


def _write(
    model: Model, prompt: list[int], settings: GenerationSettings, numerics: Numerics, *, draft: bool
) -> tuple[list[int], list[bytes], Speculation | None]:
    info, key = model.bundle.manifest.model, NoiseKey.of(settings.seed or 0)
    assert model.draft is not None
    with model.draft.lent(settings, key) as drafter:
        guesses = Speculation(drafter, _Three(StepCosts(1))) if draft else None
        seen: list[bytes] = []
        loop = TokenLoop(
            model.session.decoder(), Sampler(settings, key, vocab_size=info.vocab_size), settings,
            context_length=info.context_length, eos=info.eos_token_ids, numerics=numerics,
            on_choice=lambda logits, _token: seen.append(logits.tobytes()), speculation=guesses,
        )  # fmt: skip
        for _ in loop.prefill(prompt, chunk=16):
            pass
        return list(loop), seen, guesses


@pytest.mark.parametrize("name", SAMPLED)
def test_no_bit_changes_under_exact_numerics(drafted: Model, name: str) -> None:
    prompt = drafted.encode(drafted.render("What is 12 + 30?"))
    tokens, logits, _ = _write(drafted, prompt, SAMPLED[name], "exact", draft=False)
    for _ in range(2):  # the second time the draft's cache holds the text already
        found, bits, guesses = _write(drafted, prompt, SAMPLED[name], "exact", draft=True)
        assert found == tokens
        assert bits == logits
        assert guesses is not None
        assert 0 < guesses.accepted <= guesses.drafted


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draft_with_the_same_weights_guesses_what_is_drawn(
    tiny_bundle: Callable[[str], Path], temperature: float
) -> None:
    """With the same noise: two draws of one distribution that knew nothing of each other would rarely agree."""
    path = tiny_bundle("fp32")
    with open_bundle(path, threads=1, draft=path) as model:
        settings = GREEDY.replace(temperature=temperature, seed=7)
        prompt = model.encode(model.render("What is 12 + 30?"))
        tokens, _, guesses = _write(model, prompt, settings, "fast", draft=True)
        assert tokens == _write(model, prompt, settings, "fast", draft=False)[0]
        assert guesses is not None
        assert guesses.accepted >= guesses.drafted - 3  # of the last run some may come after the end


def test_a_cancelled_generation_does_not_wait_for_the_draft_to_read_the_prompt(drafted: Model) -> None:
    """The event is set once the model has read the prompt and the draft has begun to; the run in progress ends."""
    prompt = drafted.encode(drafted.render("What is 12 + 30? " * 8))
    info, key, cancel = drafted.bundle.manifest.model, NoiseKey.of(0), threading.Event()
    assert drafted.draft is not None
    with drafted.draft.lent(GREEDY, key) as drafter:
        decoder, runs = drafter.decoder, [0]
        feed, interrupt, interrupted = decoder.feed, decoder.interrupt, threading.Event()

        def stop() -> None:
            interrupt()
            interrupted.set()

        def cancelled_meanwhile(tokens: Sequence[int]) -> npt.NDArray[np.float32]:
            runs[0] += 1
            cancel.set()
            assert interrupted.wait(60)
            return feed(tokens)

        decoder.feed, decoder.interrupt = cancelled_meanwhile, stop  # type: ignore[method-assign]
        loop = TokenLoop(
            drafted.session.decoder(), Sampler(GREEDY, key, vocab_size=info.vocab_size), GREEDY,
            context_length=info.context_length, eos=info.eos_token_ids, cancel=cancel,
            speculation=Speculation(drafter, _Three(StepCosts(1))),
        )  # fmt: skip
        try:
            done = list(loop.prefill(prompt, chunk=16))
        finally:
            del decoder.feed, decoder.interrupt
        assert done[-1] == (len(prompt), len(prompt))
        assert loop.finish_reason == "cancelled"
        assert runs == [1]
        assert list(loop) == []
    assert drafted.generate("hi", settings=GREEDY).stats.new_tokens == 40  # the draft's decoder runs again


def test_up_to_the_end_of_the_drafts_context(tiny_bundle: Callable[[str], Path]) -> None:
    with open_bundle(tiny_bundle("int8-b32"), threads=1, draft=tiny_bundle("fp32")) as model:
        assert model.draft is not None
        prompt = model.encode(model.render("What is 12 + 30?"))
        key = NoiseKey.of(0)
        with model.draft.lent(GREEDY, key) as drafter:
            drafter._limit = len(prompt) + 2
            drafter.extend(prompt)
            assert drafter.confidence()
            assert len(drafter.propose(5)) == 2
            drafter.extend([5, 6])
            assert drafter.confidence() == 0


def test_tokens_that_the_draft_lacks_end_its_guesses(tiny_bundle: Callable[[str], Path]) -> None:
    with open_bundle(tiny_bundle("fp32"), threads=1, draft=tiny_bundle("fp32")) as model:
        assert model.draft is not None
        with model.draft.lent(GREEDY, NoiseKey.of(0)) as drafter:
            drafter._vocab_size = 100
            drafter.extend([5, 6, 7])
            assert drafter.confidence()
            assert max(drafter.propose(4)) < 100
            drafter.extend([100])
            assert drafter.confidence() == 0


def test_the_whole_way_through_the_model(drafted: Model) -> None:
    assert drafted.default_settings.speculate == "auto"
    assert drafted.draft is not None
    assert not drafted.draft.model.session.config.allow_spinning  # it would take a core from the model's own threads
    settings = GREEDY.replace(temperature=0.8, seed=2)
    plain = drafted.generate("hi", settings=settings, numerics="exact", speculate="off")
    found = drafted.generate("hi", settings=settings, numerics="exact", speculate="auto")
    assert found.tokens == plain.tokens
    assert plain.stats.drafted_tokens == 0
    assert 0 <= found.stats.accepted_tokens <= found.stats.drafted_tokens
    with (
        drafted.chat(numerics="exact", settings=settings) as talk,
        drafted.chat(numerics="exact", settings=settings, speculate="off") as silent,
    ):
        for text in ("a", "b"):
            assert talk.ask(text).tokens == silent.ask(text).tokens


def test_a_draft_with_other_tokens_is_refused_in_a_line(tiny_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_bundle("fp32"), other)
    tokenizer = json.loads((other / TOKENIZER).read_text())
    vocab = tokenizer["model"]["vocab"]
    first, second = list(vocab)[40:42]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (other / TOKENIZER).write_text(json.dumps(tokenizer))
    manifest = json.loads((other / "manifest.json").read_text())
    for entry in manifest["files"]:
        if entry["name"] == TOKENIZER:
            made = file_entry(other, TOKENIZER)
            entry["size"], entry["sha256"] = made.size, made.sha256
    (other / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match=r"The draft other has another tokenizer than .*: token \d+ is '.*' in one"):
        open_bundle(tiny_bundle("int8-b32"), threads=1, draft=other)


def _seconds(tokens: int, right: Callable[[int], bool], *, step: float, price: float, base: int = 1) -> float:
    """Time to write a text with a draft that guesses right where ``right`` says so, by a clock of costs alone."""
    now = [0.0]
    widths = {1: 1.0, 2: 1.15, 4: 1.5, 8: 2.4, 16: 3.8}

    class Priced:
        seconds_per_guess = price

        def __init__(self) -> None:
            self.at = 0

        def extend(self, tokens: list[int]) -> None:
            self.at += len(tokens)

        def confidence(self) -> int:
            return TOP_CONFIDENCE

        def propose(self, count: int) -> list[int]:
            now[0] += price * count
            return [place if right(place) else -1 for place in range(self.at, self.at + count)]

    loop = Speculation(Priced(), DraftControl(StepCosts(base), prior=0.7), clock=lambda: now[0])  # type: ignore[arg-type]
    written = 0
    while written < tokens:
        guesses = loop.guesses(tokens - written - 1)
        now[0] += step * widths[len(guesses) + 1 if guesses else base]
        matched = next((i for i, guess in enumerate(guesses) if guess != written + i), len(guesses))
        loop.done(len(guesses), list(range(written, written + matched + 1)))
        written += matched + 1
    return now[0]


@pytest.mark.parametrize("price", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("base", [1, 2])
@pytest.mark.parametrize("tokens", [120, 3000])
def test_a_draft_that_is_always_wrong_costs_three_per_cent_at_most(tokens: int, base: int, price: float) -> None:
    plain = tokens * (1.0 if base == 1 else 1.15)
    assert _seconds(tokens, lambda _place: False, step=1.0, price=price, base=base) * 0.97 <= plain


def test_a_draft_as_slow_as_the_model_is_left_alone_however_right_it_is() -> None:
    assert _seconds(1000, lambda _place: True, step=1.0, price=1.2) <= 1030


def test_a_draft_that_is_right_and_fast_pays() -> None:
    assert _seconds(1000, lambda _place: True, step=1.0, price=0.1) < 360
    assert _seconds(1000, lambda place: place % 5 > 0, step=1.0, price=0.1) < 750
