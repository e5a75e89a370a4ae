"""Prompts on disk of models with states: another process goes on from a state, with the bits of a fresh prefill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hybrid_checkpoints import WRITERS
from shared import made_once

from edgedistill.runtime.model import open_bundle
from edgedistill.runtime.prompt_cache import BLOCK, PromptCache, usage
from edgedistill.runtime.prompt_states import PREFIX
from edgedistill.runtime.session import DecoderSession

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.runtime.events import Generation

PROMPT = "Ann has 3 apples and buys 4 more apples. How many apples does Ann have now?"
TOKENS = np.random.default_rng(5).integers(3, 300, 3 * BLOCK + 9).tolist()


@pytest.fixture(scope="module", params=sorted(WRITERS))
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    def make(out: Path) -> Path:
        from exporting import export

        source = WRITERS[request.param](out.parent / f"{request.param}-source")
        return export(source, out, format="int4-b32", context=192, kv_cache="int8", check=False).path

    return made_once(tmp_path_factory, f"bundles/{request.param}-int8-cache", make)


def generate(bundle: Path, where: Path | bool, prompt: Any, **settings: Any) -> Generation:
    with open_bundle(bundle, threads=1, prompt_cache=where) as model:
        return model.generate(prompt, temperature=0.0, max_new_tokens=12, logprobs=0, **settings)


@pytest.mark.parametrize("numerics", ["fast", "exact"])
def test_a_prompt_that_was_kept_goes_on_from_the_last_state_before_its_end(
    bundle: Path, tmp_path: Path, numerics: str
) -> None:
    plain = generate(bundle, False, PROMPT, numerics=numerics)
    first = generate(bundle, tmp_path, PROMPT, numerics=numerics)
    again = generate(bundle, tmp_path, PROMPT, numerics=numerics)
    assert first.stats.cached_tokens == 0
    assert again.stats.cached_tokens == again.stats.prompt_tokens - 8
    assert plain.tokens == first.tokens == again.tokens
    assert plain.logprobs == first.logprobs == again.logprobs


def test_a_conversation_goes_on_in_another_process(bundle: Path, tmp_path: Path) -> None:
    first = generate(bundle, tmp_path, PROMPT, numerics="exact")
    question = {"role": "user", "content": PROMPT}
    messages = [question, {"role": "assistant", "content": first.text}, {"role": "user", "content": "and?"}]
    plain = generate(bundle, False, messages, numerics="exact")
    found = generate(bundle, tmp_path, messages, numerics="exact")
    assert found.stats.cached_tokens >= first.stats.prompt_tokens
    assert (found.tokens, found.logprobs) == (plain.tokens, plain.logprobs)


def test_stored_blocks_are_used_as_far_as_there_is_a_state(bundle: Path, tmp_path: Path) -> None:
    with open_bundle(bundle, threads=1) as model:
        assert isinstance(model.session, DecoderSession)
        cache = PromptCache(model.bundle, model.session, tmp_path)
        whole = model.session.decoder()
        whole.feed(TOKENS[:40], exact=True, logits=False)
        whole.feed(TOKENS[40:], exact=True)
        cache.store(whole)
        expected = whole.feed(TOKENS[:5], exact=True).copy()
        # The states: after the first chunk, before the last tokens of the text, at its end.
        assert usage(tmp_path).files == 4 + 3
        for wanted, reached in ((100, 97), (98, 97), (97, 40), (41, 40), (40, 0), (5, 0)):
            other = model.session.decoder()
            assert cache.load(other, [*TOKENS[: wanted - 1], 0], exact=True) == reached
            assert other.cached(exact=True).tolist() == TOKENS[:reached]
            other.feed([*TOKENS[reached:], *TOKENS[:5]], exact=True)
            np.testing.assert_array_equal(other.feed(TOKENS[:3], exact=True), whole.feed(TOKENS[:3], exact=True))
            whole.truncate(len(TOKENS) + 5)
        # What a decoder holds already is not read again, and nothing is given back for a state that it has.
        held = model.session.decoder()
        held.feed(TOKENS[:40], exact=True, logits=False)
        assert cache.load(held, [*TOKENS, 0], exact=True) == len(TOKENS) - 40
        np.testing.assert_array_equal(held.feed(TOKENS[:5], exact=True), expected)
        assert cache.load(held, [*TOKENS[:50], 0], exact=True) == 0
        assert held.length == len(TOKENS) + 5


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "link"])
def test_a_damaged_state_is_computed_again(bundle: Path, tmp_path: Path, damage: str) -> None:
    where = tmp_path / "prompts"
    plain = generate(bundle, where, PROMPT)
    states = [path for path in where.iterdir() if path.name.startswith(PREFIX)]
    assert states
    for path in states:
        content = bytearray(path.read_bytes())
        if damage == "flip":
            content[-5] ^= 1
        path.write_bytes(content[:-5] if damage == "cut" else b"" if damage == "empty" else content)
        if damage == "link":
            path.rename(tmp_path / path.name)
            path.symlink_to(tmp_path / path.name)
    found = generate(bundle, where, PROMPT)
    assert found.stats.cached_tokens == 0
    assert found.tokens == plain.tokens
