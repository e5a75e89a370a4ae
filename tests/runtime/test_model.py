from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from bundle_files import copy_bundle
from exporting import export
from runtime_support import GREEDY, SAMPLED

import edgedistill
from edgedistill.errors import BudgetError, BundleError, GenerationError
from edgedistill.runtime.events import Generation
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.text.chat_template import PassThrough
from edgedistill.runtime.text.reasoning import DEFAULT_GRAMMAR, DEFAULT_TAGS
from edgedistill.runtime.text.transcript import Transcript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="module", params=["int4-b32", "int8-b64"])
def quantized(request: pytest.FixtureRequest, tiny_bundle: Callable[[str], Path]) -> Iterator[Model]:
    with open_bundle(tiny_bundle(request.param), threads=1) as model:
        yield model


def reference_tokens(model: Any, ids: list[int], count: int) -> list[int]:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        out = model.generate(
            torch.tensor([ids]), max_new_tokens=count, do_sample=False, eos_token_id=319, pad_token_id=0
        )
    return [int(t) for t in out[0, len(ids) :]]


# ---- tokens -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_64_greedy_tokens_equal_transformers(fp32: Model, checkpoint: tuple[Path, Any], mode: Any) -> None:
    ids = fp32.encode(fp32.render("What is 12 + 30?"))
    expected = reference_tokens(checkpoint[1], ids, 64)
    assert len(set(expected)) > 5  # a model that repeats one token proves nothing
    got = fp32.generate("What is 12 + 30?", settings=GREEDY.replace(max_new_tokens=64), numerics=mode)
    assert list(got.tokens) == expected


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_prefill_chunk_does_not_change_the_text(quantized: Model, mode: Any) -> None:
    texts = set()
    chunk = quantized.prefill_chunk
    for size in (2, 7, 16, 256):
        quantized.prefill_chunk = size
        quantized.release()
        texts.add(quantized.generate("größer, naïve?", settings=SAMPLED, numerics=mode).tokens)
    quantized.prefill_chunk = chunk
    assert len(texts) == 1


def test_exact_mode_is_what_scoring_says(quantized: Model) -> None:
    """Greedy tokens of exact numerics are the argmax of one prefill over prompt and answer, bit for bit."""
    prompt = quantized.encode(quantized.render("What is 12 + 30?"))
    got = quantized.generate("What is 12 + 30?", settings=GREEDY.replace(max_new_tokens=40), numerics="exact")
    scores = quantized.session.decoder().score(np.array([prompt + list(got.tokens)]), chunk=64)
    best = np.concatenate([part.logits.argmax(axis=1) for part in scores])
    assert best[len(prompt) - 1 : -1].tolist() == list(got.tokens)


def test_seed_reproduces_and_another_differs(fp32: Model) -> None:
    first = fp32.generate("hello", settings=SAMPLED)
    assert fp32.generate("something else", settings=SAMPLED).tokens != first.tokens
    assert fp32.generate("hello", settings=SAMPLED).tokens == first.tokens
    assert fp32.generate("hello", settings=SAMPLED.replace(seed=6)).tokens != first.tokens
    assert first.stats.seed == 5


def test_without_a_seed_one_is_drawn_and_reported(fp32: Model) -> None:
    first = fp32.generate("hello", settings=SAMPLED.replace(seed=None))
    again = fp32.generate("hello", settings=SAMPLED.replace(seed=first.stats.seed))
    assert again.tokens == first.tokens
    assert fp32.generate("hello", settings=GREEDY).stats.seed is None


def test_repetition_penalty_changes_greedy_text(fp32: Model) -> None:
    plain = fp32.generate("aaaa", settings=GREEDY.replace(max_new_tokens=40))
    fined = fp32.generate("aaaa", settings=GREEDY.replace(max_new_tokens=40, repetition_penalty=5.0))
    assert len(set(fined.tokens)) > len(set(plain.tokens))


def test_score_is_the_log_probability(fp32: Model, checkpoint: tuple[Path, Any]) -> None:
    torch = pytest.importorskip("torch")
    ids = fp32.encode("The answer is 42. größer", raw=True)
    with torch.no_grad():
        logits = checkpoint[1](torch.tensor([ids])).logits[0].double()
    expected = torch.log_softmax(logits, -1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()
    got = fp32.score(ids)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, atol=1e-4)
    with pytest.raises(GenerationError, match="at least two"):
        fp32.score([1])


# ---- conversations ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_a_second_turn_reuses_the_cache_and_changes_nothing(fp32: Model, mode: Any) -> None:
    settings = GREEDY.replace(max_new_tokens=12)
    turns = [{"role": "user", "content": "What is 12 + 30?"}]
    fp32.release()
    first = fp32.generate(turns, settings=settings, numerics=mode)
    assert first.stats.cached_tokens == 0
    turns += [{"role": "assistant", "content": first.text}, {"role": "user", "content": "Sure?"}]
    second = fp32.generate(turns, settings=settings, numerics=mode)
    # All of the first prompt stays; the template writes no reasoning for earlier answers, so they differ behind it.
    assert second.stats.cached_tokens >= first.stats.prompt_tokens
    fp32.release()
    fresh = fp32.generate(turns, settings=settings, numerics=mode)
    assert fresh.stats.cached_tokens == 0
    assert fresh.tokens == second.tokens
    assert second.stats.prefill_tps > 0


def test_exact_mode_does_not_build_on_fast_entries(quantized: Model) -> None:
    quantized.release()
    fast = quantized.generate("Say abc", settings=GREEDY, numerics="fast", raw=True)
    prompt = "Say abc" + fast.text
    exact = quantized.generate(prompt, settings=GREEDY, numerics="exact", raw=True)
    assert exact.stats.cached_tokens <= len(quantized.encode("Say abc", raw=True))
    quantized.release()
    assert quantized.generate(prompt, settings=GREEDY, numerics="exact", raw=True).tokens == exact.tokens


def test_threads_generate_side_by_side(fp32: Model) -> None:
    prompts = [f"number {i}" for i in range(4)]
    expected = {p: fp32.generate(p, settings=SAMPLED).tokens for p in prompts}
    got: dict[str, tuple[int, ...]] = {}
    threads = [
        threading.Thread(target=lambda p=p: got.update({p: fp32.generate(p, settings=SAMPLED).tokens})) for p in prompts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == expected


# ---- prompts --------------------------------------------------------------------------------------------------------


def test_thinking_raw_and_messages(fp32: Model) -> None:
    assert fp32.render("q").endswith("<|im_start|>assistant\n")
    assert fp32.render("q", thinking=False).endswith("<think>\n\n</think>\n\n")
    assert fp32.render("q", raw=True) == "q"
    assert "system\nbe brief" in fp32.render(
        [{"role": "system", "content": "be brief"}, {"role": "user", "content": "q"}]
    )
    with pytest.raises(GenerationError, match="raw prompt"):
        fp32.render([{"role": "user", "content": "q"}], raw=True)
    with pytest.raises(GenerationError, match="no tokens"):
        fp32.generate("", settings=GREEDY, raw=True)
    with pytest.raises(GenerationError, match="fast or exact"):
        fp32.generate("q", numerics="wild")  # type: ignore[arg-type]


def test_default_settings_come_with_the_bundle(fp32: Model) -> None:
    assert fp32.default_settings.temperature == 0.6
    assert fp32.default_settings.top_p == 0.95


def test_transcript_splits_reasoning_and_counts_its_tokens(fp32: Model) -> None:
    tokenizer = fp32.tokenizer
    ids = tokenizer.encode("<think>12+30 is 42</think>42", add_special_tokens=False).ids
    transcript = Transcript(tokenizer, (), DEFAULT_GRAMMAR, opened=None)
    events = [e for i in ids for e in transcript.add(i)] + transcript.finish()
    assert [e.kind for e in events if e.kind == "marker"] == ["marker", "marker"]
    assert transcript.text("reasoning") == "12+30 is 42"
    assert transcript.text("answer") == "42"
    assert transcript.reasoning_tokens == ids.index(tokenizer.token_to_id("</think>")) + 1
    assert sum(e.tokens for e in events) == len(ids)
    opened = Transcript(tokenizer, (), DEFAULT_GRAMMAR, opened=DEFAULT_TAGS[0])
    for i in tokenizer.encode("thinking on", add_special_tokens=False).ids:
        opened.add(i)
    opened.finish()
    assert (opened.text("reasoning"), opened.closed) == ("thinking on", False)


def test_bundle_without_a_template(checkpoint: Any, tmp_path: Path) -> None:
    from runtime_support import CONTEXT, save_checkpoint

    save_checkpoint(tmp_path / "hf", template=None)
    export(tmp_path / "hf", tmp_path / "out", format="fp32", context=CONTEXT, check=False)
    with open_bundle(tmp_path / "out") as model:
        assert isinstance(model.template, PassThrough)
        got = model.generate("Once upon", settings=GREEDY)
        assert got.note is not None
        assert "no chat template" in got.note
        assert model.generate("Once upon", settings=GREEDY, raw=True).tokens == got.tokens


def test_damaged_tokenizer_is_a_bundle_error(tiny_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    broken = copy_bundle(tiny_bundle("fp32"), tmp_path / "b", tokenizer_json=b"x")
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read"):
        open_bundle(broken)


def test_generation_is_exported_lazily() -> None:
    assert edgedistill.Model is Model
    assert isinstance(Generation, type)


def test_too_little_memory_is_said_before_loading(tiny_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedistill.runtime.loading.available_memory", lambda: 1000)
    with pytest.raises(BudgetError, match=r"take .* of memory.*are available.*Close other programs"):
        open_bundle(tiny_bundle_dir)
