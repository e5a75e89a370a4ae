"""Traces: made by the model itself or from a file, stored, split, and refused where they do not fit."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.errors import CalibrationError
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.traces.generate import from_file_for, self_generated
from edgedistill.traces.prompts import built_in_texts, calibration_prompts
from edgedistill.traces.traces import Traces
from edgedistill.verify.suites.registry import BUILT_IN as BUILT_IN_SUITES

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tiny_bundle_dir: Path):
    with open_bundle(tiny_bundle_dir) as opened:
        yield opened


def test_the_prompts_are_not_those_of_verification() -> None:
    asked = {prompt.messages[0].content for prompt in calibration_prompts(200)}
    assert len(asked) > 150
    for suite in BUILT_IN_SUITES.values():
        assert not asked & {prompt.messages[0].content for prompt in suite().prompts}
    everyday = {text for text in asked if not any(c.isdigit() for c in text)}
    assert len(everyday) > 50
    assert not everyday & {prompt.messages[0].content for prompt in calibration_prompts(200, seed=1)}


def test_what_is_fitted_and_what_is_judged_by_share_no_text() -> None:
    """Eight words in a row that occur on both sides would be a quotation."""
    table = tomllib.loads((ROOT / "bench" / "held_out.toml").read_text(encoding="utf-8"))
    judged = [prompt for entry in table["chat"] for prompt in entry["prompts"]]
    judged += [entry["text"] for entry in table["text"]]
    asked = [prompt.messages[-1].content for suite in BUILT_IN_SUITES.values() for prompt in suite().prompts]
    fitted = list(built_in_texts(lambda messages: "\n\n".join(m["content"] for m in messages)))
    assert not _shingles([*judged, *asked]) & _shingles(fitted)
    prompts = [prompt.messages[0].content for prompt in calibration_prompts(400)]
    assert len(prompts) == 400
    assert not _shingles(judged) & _shingles(prompts)


def _shingles(texts: list[str], width: int = 8) -> set[tuple[str, ...]]:
    words = [text.lower().split() for text in texts]
    return {tuple(some[n : n + width]) for some in words for n in range(len(some) - width + 1)}


def test_self_generated_traces_are_reproducible_and_cached(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path))
    first = self_generated(model, sequences=4, length=96)
    stored = list((tmp_path / "traces").glob("*.jsonl"))
    again = self_generated(model, sequences=4, length=96, cache=False)
    assert first.sha256 == again.sha256
    assert len(stored) == 1
    assert self_generated(model, sequences=4, length=96).sha256 == first.sha256
    assert all(2 <= len(ids) <= 96 for ids in first.sequences)
    assert first.tokens >= 4 * 96
    other = self_generated(model, sequences=4, length=96, seed=1, cache=False)
    assert other.sha256 != first.sha256


def test_a_damaged_cache_is_made_again(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path))
    first = self_generated(model, sequences=2, length=64)
    (stored,) = (tmp_path / "traces").glob("*.jsonl")
    stored.write_text(stored.read_text()[:-40])
    assert self_generated(model, sequences=2, length=64).sha256 == first.sha256


@given(st.lists(st.lists(st.integers(0, 99), min_size=2, max_size=9), min_size=2, max_size=30), st.floats(0.05, 0.5))
def test_a_split_loses_nothing(sequences: list[list[int]], held_out: float) -> None:
    traces = Traces(tuple(np.array(ids) for ids in sequences), (1,) * len(sequences), "t", "test")
    kept, out = traces.split(held_out)
    assert kept.sequences
    assert out.sequences
    assert sorted(map(tuple, (*kept.sequences, *out.sequences))) == sorted(map(tuple, traces.sequences))


def test_saved_traces_come_back(tmp_path: Path) -> None:
    traces = Traces((np.arange(5), np.arange(9)), (2, 0), "hash", "test")
    path = tmp_path / "t.jsonl"
    traces.save(path)
    loaded = Traces.load(path, tokenizer_sha256="hash", vocab_size=9)
    assert loaded.sha256 == traces.sha256
    assert loaded.prompt_tokens == (2, 0)
    with pytest.raises(CalibrationError, match="another tokenizer"):
        Traces.load(path, tokenizer_sha256="other", vocab_size=9)
    with pytest.raises(CalibrationError, match="knows 0 to 7"):
        Traces.load(path, tokenizer_sha256="hash", vocab_size=8)
    path.write_text(path.read_text().replace("[0, 1, 2, 3, 4]", "[0, 1, 2, 3, 3]"))
    with pytest.raises(CalibrationError, match="altered"):
        Traces.load(path, tokenizer_sha256="hash", vocab_size=9)


def test_text_is_cut_into_sequences(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("All work and no play makes a dull model. " * 40)
    traces = from_file_for(model, path, length=100)
    assert {len(ids) for ids in traces.sequences[:-1]} == {100}
    assert model.tokenizer.decode([int(i) for ids in traces.sequences for i in ids]).startswith("All work and no play")
    assert from_file_for(model, path, length=100, limit=250).tokens == 300


def test_jsonl_of_every_kind(model: Model, tmp_path: Path) -> None:
    long = "number " * 60
    lines = [
        {"text": long},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": long}]},
        {"prompt": "What is 2 + 3?", "reply": long},
    ]
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    traces = from_file_for(model, path, length=1000)
    texts = [model.tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in traces.sequences]
    joined = "".join(texts)
    assert "<|im_start|>user" in joined
    assert "What is 2 + 3?" in joined
    assert joined.count("assistant") == 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "has 0 tokens"),
        ("a.txt", b"too short", "expected at least 256"),
        ("a.txt", b"\xff\xfe\x00", "not UTF-8"),
        ("a.jsonl", b"\n \n", "has 0 tokens"),
        ("a.jsonl", b'{"text": "x"}\n{', "line 2: malformed JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1: malformed JSON"),
        ("a.jsonl", b"[1]\n", "line 1: Expected an object"),
        ("a.jsonl", b'{"reply": "x"}\n', "line 1: Expected an object"),
        ("a.jsonl", b'{"prompt": "x", "reply": 7}\n', "line 1: Expected an object"),
        ("a.jsonl", b'{"text": "x"}\n{"messages": ["hello"]}\n', "line 2: Message 0 has no role"),
        ("a.jsonl", b'{"messages": []}\n', "line 1: There are no messages"),
    ],
)
def test_bad_files(model: Model, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=message):
        from_file_for(model, path)
    with pytest.raises(CalibrationError, match="no calibration file"):
        from_file_for(model, tmp_path / "missing.txt")


def test_files_of_traces_that_do_not_do(model: Model, tmp_path: Path) -> None:
    ids, own = np.arange(300), hashlib.sha256(model.bundle.file("tokenizer.json").read_bytes()).hexdigest()

    def refused(traces: Traces, message: str) -> None:
        traces.save(tmp_path / "t.jsonl")
        with pytest.raises(CalibrationError, match=message):
            from_file_for(model, tmp_path / "t.jsonl")

    refused(Traces((ids,), (0,), "0" * 64, "x"), "tokens of another tokenizer .000000000000; this model's: ")
    refused(Traces((ids[:30],), (0,), own, "x"), "has 30 tokens; expected at least 256")
    refused(Traces((ids + 10**6,), (0,), own, "x"), "this model knows 0 to")
    Traces((ids, ids), (0, 0), own, "x").save(tmp_path / "t.jsonl")
    assert from_file_for(model, tmp_path / "t.jsonl").tokens == 600
    assert from_file_for(model, tmp_path / "t.jsonl", limit=400).tokens == 300
    content = (tmp_path / "t.jsonl").read_text()
    for damaged in (content.replace("[0, 1", "[1, 1"), content[:-200], content.splitlines()[0]):
        (tmp_path / "t.jsonl").write_text(damaged)
        with pytest.raises(CalibrationError, match="Delete it"):
            from_file_for(model, tmp_path / "t.jsonl")
