"""Prompts on disk: another process computes new tokens only, gets the same bits, and trusts nothing that changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgedistill.runtime import prompt_cache
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.prompt_cache import BLOCK, PromptCache
from edgedistill.runtime.session import DecoderSession

SYSTEM = {"role": "system", "content": "Answer briefly, and with numbers alone. 0123456789 0123456789 0123456789"}


def _ask(text: str) -> list[dict[str, str]]:
    return [SYSTEM, {"role": "user", "content": text}]


@pytest.fixture(params=["fp32", "int4-b32"])
def bundle(request: pytest.FixtureRequest, tiny_bundle: Callable[[str], Path]) -> Path:
    return tiny_bundle(request.param)


def _generate(bundle: Path, where: Path | bool, messages: list[dict[str, str]], **keywords: object):
    with open_bundle(bundle, threads=1, prompt_cache=where) as model:
        return model.generate(messages, seed=1, max_new_tokens=12, logprobs=0, **keywords)  # type: ignore[arg-type]


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_a_prompt_that_was_kept_is_not_computed_again(bundle: Path, tmp_path: Path, numerics: str) -> None:
    plain = _generate(bundle, False, _ask("hi"), numerics=numerics)
    first = _generate(bundle, tmp_path, _ask("hi"), numerics=numerics)
    again = _generate(bundle, tmp_path, _ask("hi"), numerics=numerics)
    assert first.stats.cached_tokens == 0
    assert again.stats.cached_tokens == again.stats.prompt_tokens - 1
    assert plain.tokens == first.tokens == again.tokens
    assert plain.logprobs == first.logprobs == again.logprobs


def test_prompts_with_the_same_beginning_share_it_to_the_token(bundle: Path, tmp_path: Path) -> None:
    _generate(bundle, tmp_path, _ask("hi"))
    plain = _generate(bundle, False, _ask("What is 12?"))
    found = _generate(bundle, tmp_path, _ask("What is 12?"))
    with open_bundle(bundle, threads=1) as model:
        one, other = (model.encode(model.render(_ask(text))) for text in ("hi", "What is 12?"))
    same = next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    assert same > BLOCK
    assert found.stats.cached_tokens == same
    assert (found.tokens, found.logprobs) == (plain.tokens, plain.logprobs)


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_a_conversation_goes_on_in_another_process_with_new_tokens_only(
    bundle: Path, tmp_path: Path, numerics: str
) -> None:
    with open_bundle(bundle, threads=1, prompt_cache=tmp_path) as model:
        first = model.generate(_ask("hi"), seed=1, max_new_tokens=9, numerics=numerics)  # type: ignore[arg-type]
        messages = [*_ask("hi"), {"role": "assistant", "content": first.answer}, {"role": "user", "content": "and?"}]
        kept = model.generate(messages, seed=1, max_new_tokens=9, numerics=numerics)  # type: ignore[arg-type]
    prompt_cache.clear(tmp_path)
    with open_bundle(bundle, threads=1, prompt_cache=tmp_path) as model:
        model.generate(_ask("hi"), seed=1, max_new_tokens=9, numerics=numerics)  # type: ignore[arg-type]
    reopened = _generate(bundle, tmp_path, messages, numerics=numerics)
    assert reopened.stats.cached_tokens == kept.stats.cached_tokens > 0
    assert reopened.tokens[:9] == kept.tokens


def test_two_branches_of_a_conversation_are_both_kept(bundle: Path, tmp_path: Path) -> None:
    """In memory the second branch takes the place of the first."""
    with open_bundle(bundle, threads=1, prompt_cache=tmp_path) as model:
        for text in ("one way 0123456789", "another way 0123456789"):
            model.generate(_ask(text), seed=1, max_new_tokens=9)
        for text in ("one way 0123456789", "another way 0123456789"):
            stats = model.generate(_ask(text), seed=1, max_new_tokens=9).stats
            assert stats.cached_tokens == stats.prompt_tokens - 1


def test_a_regenerated_reply_computes_one_token_of_the_prompt(bundle: Path) -> None:
    with open_bundle(bundle, threads=1) as model:
        model.generate(_ask("hi"), seed=1, max_new_tokens=9)
        stats = model.generate(_ask("hi"), seed=2, max_new_tokens=9).stats
    assert stats.cached_tokens == stats.prompt_tokens - 1


def test_exact_numerics_take_no_entries_of_the_fast_path(bundle: Path, tmp_path: Path) -> None:
    first = _generate(bundle, tmp_path, _ask("hi"))
    with open_bundle(bundle, threads=1) as model:
        prompt = [*model.encode(model.render(_ask("hi"))), *first.tokens[:-1]]
        assert isinstance(model.session, DecoderSession)
        cache = PromptCache(model.bundle, model.session, tmp_path)
        decoder = model.session.decoder()
        cache.load(decoder, [*prompt, 0], exact=True)
        assert first.stats.prompt_tokens // BLOCK * BLOCK <= decoder.length <= first.stats.prompt_tokens
        assert len(decoder.cached(exact=True)) == decoder.length
        fast = model.session.decoder()
        cache.load(fast, [*prompt, 0], exact=False)
        assert fast.length == len(prompt)


def test_files_are_the_users_alone(tiny_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    where = tmp_path / "prompts"
    _generate(tiny_bundle("fp32"), where, _ask("hi"))
    files = list(where.iterdir())
    assert files
    if os.name == "posix":
        assert stat.S_IMODE(where.stat().st_mode) == 0o700
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other tokens", "link"])
def test_a_damaged_file_is_computed_again(tiny_bundle: Callable[[str], Path], tmp_path: Path, damage: str) -> None:
    bundle, where = tiny_bundle("int4-b32"), tmp_path / "prompts"
    plain = _generate(bundle, where, _ask("hi"))
    for path in where.iterdir():
        content = bytearray(path.read_bytes())
        if damage == "flip":
            content[-5] ^= 1
        elif damage == "cut":
            content = content[:-5]
        elif damage == "empty":
            content = bytearray()
        elif damage == "other tokens":
            content[60] ^= 1
        path.write_bytes(content)
        if damage == "link":
            path.rename(tmp_path / path.name)
            path.symlink_to(tmp_path / path.name)
    found = _generate(bundle, where, _ask("hi"))
    assert found.stats.cached_tokens == 0
    assert found.tokens == plain.tokens
    assert _generate(bundle, where, _ask("hi")).stats.cached_tokens > 0


def test_other_bundles_versions_and_processors_share_nothing(
    tiny_bundle: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _generate(tiny_bundle("int4-b32"), tmp_path, _ask("hi"))
    assert _generate(tiny_bundle("fp32"), tmp_path, _ask("hi")).stats.cached_tokens == 0
    with monkeypatch.context() as patch:
        patch.setattr("onnxruntime.__version__", "0.0")
        assert _generate(tiny_bundle("int4-b32"), tmp_path, _ask("hi")).stats.cached_tokens == 0
    with monkeypatch.context() as patch:
        patch.setattr("platform.machine", lambda: "riscv64")
        assert _generate(tiny_bundle("int4-b32"), tmp_path, _ask("hi")).stats.cached_tokens == 0
    assert _generate(tiny_bundle("int4-b32"), tmp_path, _ask("hi")).stats.cached_tokens > 0


def test_the_oldest_go_first_and_the_limit_holds(fp32: Model, tmp_path: Path) -> None:
    assert isinstance(fp32.session, DecoderSession)
    size = 0
    for limit in (1 << 30, 0):
        cache = PromptCache(fp32.bundle, fp32.session, tmp_path, limit=limit or size // 2)
        for seed in range(1 if limit else 3):
            tokens = np.random.default_rng(seed).integers(0, 300, size=5 * BLOCK + 7).tolist()[:150]
            decoder = fp32.session.decoder()
            decoder.feed(tokens, exact=True)
            cache.store(decoder)
        use = prompt_cache.usage(tmp_path)
        size = size or use.size
        assert 0 < use.size <= (limit or size // 2)
    # Of the last text the beginning is left: an end without its beginning would be of no use.
    decoder = fp32.session.decoder()
    assert cache.load(decoder, [*tokens, 0], exact=True) > 0


def test_a_disk_that_fails_costs_the_cache_and_not_the_reply(
    tiny_bundle: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "prompts").write_text("a file")
    found = _generate(tiny_bundle("fp32"), tmp_path / "prompts", _ask("hi"))
    assert found.tokens == _generate(tiny_bundle("fp32"), False, _ask("hi")).tokens


def test_clearing_leaves_nothing(tiny_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    assert prompt_cache.usage(tmp_path / "none").files == 0
    _generate(tiny_bundle("fp32"), tmp_path, _ask("hi"))
    use = prompt_cache.usage(tmp_path)
    assert use.files > 0
    assert prompt_cache.clear(tmp_path) == use
    assert list(tmp_path.iterdir()) == []


def test_a_text_that_grows_leaves_no_beginnings_behind(fp32: Model, tmp_path: Path) -> None:
    assert isinstance(fp32.session, DecoderSession)
    cache = PromptCache(fp32.bundle, fp32.session, tmp_path)
    decoder = fp32.session.decoder()
    for start in range(0, 2 * BLOCK + 8, 8):
        decoder.feed([*range(start, start + 8)], exact=True)
        cache.store(decoder)
    assert prompt_cache.usage(tmp_path).files == 3
