"""Formats side by side: distances, the front, what an interruption leaves, what the page shows."""

from __future__ import annotations

import dataclasses
import itertools
import re
import shutil
import sys
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.comparison import quality
from edgedistill.comparison.options import CompareOptions
from edgedistill.comparison.page import cells, explained, html, png
from edgedistill.comparison.quality import Quality
from edgedistill.comparison.result import Comparison, Row, dominated, file_size, front
from edgedistill.comparison.run import compare
from edgedistill.errors import BudgetError, MissingExtraError, OutputError, UsageError
from edgedistill.runtime.model import open_bundle
from edgedistill.runtime.session import DecoderSession
from edgedistill.runtime.stats import Spread
from edgedistill.verify.metrics.token_divergence import divergence

if TYPE_CHECKING:
    from pathlib import Path

OPTIONS = CompareOptions(format="int8-b32,int4-b64", max_tokens=40, decode_tokens=20, rounds=0)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path / "cache"))


def text(path: Path) -> Path:
    path.write_text("Two trains leave at nine and meet at noon. " * 12)
    return path


def test_distances_are_those_of_the_logits(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, tokens=text(tmp_path / "text.txt"), keep=tmp_path / "kept")
    result = compare(tiny_checkpoint_dir, dataclasses.replace(options, context=512))
    rows = {row.name: row for row in result.rows}
    assert list(rows) == ["fp32", "int8-b32", "int4-b64"]
    assert rows["fp32"].reference
    assert rows["fp32"].scoring.kl == 0
    assert rows["fp32"].scoring.top1 == 1
    assert rows["fp32"].scoring.perplexity_ratio == 1
    assert rows["fp32"].decode.kl == pytest.approx(0, abs=1e-6)
    assert 0 < rows["int8-b32"].scoring.kl < rows["int4-b64"].scoring.kl
    assert rows["int8-b32"].decode.positions == 20
    # Once more by hand: the whole sequence in one prefill of each bundle.
    with open_bundle(tmp_path / "kept" / "fp32") as reference, open_bundle(tmp_path / "kept" / "int4-b64") as bundle:
        ids = np.array(reference.encode(options.tokens.read_text(), raw=True)[:41], dtype=np.int64)
        logits = [
            np.concatenate([s.logits for s in model.session.decoder().score(ids[None, :-1], chunk=256)])
            for model in (reference, bundle)
        ]
    expected = divergence(*logits)
    assert rows["int4-b64"].scoring.kl == pytest.approx(expected.kl.mean(), rel=1e-5)
    assert rows["int4-b64"].scoring.kl_quantiles["p99"] == pytest.approx(np.quantile(expected.kl, 0.99), rel=1e-5)
    assert rows["int4-b64"].scoring.top1 == pytest.approx(expected.top_agrees.mean())
    log_p = [one - np.log(np.exp(one.astype(np.float64)).sum(axis=1, keepdims=True)) for one in logits]
    losses = [-np.take_along_axis(one, ids[1:, None], axis=1).mean() for one in log_p]
    assert rows["int4-b64"].scoring.perplexity_ratio == pytest.approx(np.exp(losses[1] - losses[0]), rel=1e-4)
    assert not list((tmp_path / "kept").glob("*.logits"))
    # Without rounds no process measures memory: what the bundle's manifest predicts stands for it, and says so.
    assert rows["int4-b64"].private_bytes is None
    assert rows["int4-b64"].private < rows["int8-b32"].private < rows["fp32"].private
    assert all(line[3].startswith("~") for line in cells(result))
    assert any("predicted" in line for line in explained(result))
    assert result.to_dict()["rows"][1]["file_bytes"] == rows["int8-b32"].file_bytes


def test_the_decode_path_is_measured_token_by_token(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    ids = np.arange(3, 40, dtype=np.int64)
    some = quality.texts([ids], [5], 1000)
    assert some[0].positions == 32
    with open_bundle(tiny_bundle_dir) as model:
        steps = np.concatenate(
            [part.copy() for part in quality.decoding(cast(DecoderSession, model.session), some, chunk=16)]
        )
        decoder = model.session.decoder()
        first = decoder.feed(ids[:5].tolist(), exact=True).copy()
        by_hand = [first, *(decoder.feed([token]).copy() for token in ids[5:-1].tolist())]
    assert np.array_equal(steps, np.stack(by_hand))


def test_a_bundle_is_opened_once(tiny_checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def counted(path: Path) -> Any:
        opened.append(path.name)
        return open_bundle(path)

    monkeypatch.setattr("edgedistill.comparison.run.open_bundle", counted)
    options = dataclasses.replace(OPTIONS, tokens=text(tmp_path / "text.txt"), context=256, keep=tmp_path / "kept")
    compare(tiny_checkpoint_dir, options)
    assert opened == ["fp32", "int8-b32", "int4-b64"]
    opened.clear()
    compare(tiny_checkpoint_dir, options)  # all is known by now, but for the tokens
    assert opened == ["fp32"]


def test_texts_are_cut_where_enough_is_predicted() -> None:
    sequences = [np.arange(10), np.arange(4), np.arange(10)]
    found = quality.texts(sequences, [4, 4, 0], 8)
    assert [(len(t.ids), t.start, t.positions) for t in found] == [(10, 4, 6), (3, 1, 2)]


def test_an_interrupted_comparison_goes_on(
    tiny_checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dataclasses.replace(OPTIONS, rounds=1, new_tokens=4, prompt_tokens=8)
    real = quality.compare
    calls: list[str] = []

    def interrupted(*arguments: Any, **keywords: Any) -> Quality:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(keywords["name"])
        return real(*arguments, **keywords)

    monkeypatch.setattr(quality, "compare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(tiny_checkpoint_dir, dataclasses.replace(options, context=256))
    (kept,) = (tmp_path / "cache" / "compare").iterdir()
    before = {path: path.stat().st_mtime_ns for path in kept.glob("*/manifest.json")}
    assert len(before) == 3

    def counted(*arguments: Any, **keywords: Any) -> Any:
        calls.append(keywords["name"])
        return real(*arguments, **keywords)

    monkeypatch.setattr(quality, "compare", counted)
    exports: list[Any] = []
    monkeypatch.setattr("edgedistill.comparison.work.export", lambda *a, **k: exports.append(a))
    result = compare(tiny_checkpoint_dir, dataclasses.replace(options, context=256))
    assert calls == ["fp32", "fp32", "int8-b32", "int8-b32", "int4-b64", "int4-b64"]
    assert exports == []
    assert all(row.decode_tps is not None and row.decode_tps.median > 0 for row in result.rows)
    assert all(row.rss_bytes is not None and row.rss_bytes.median > row.file_bytes for row in result.rows)
    if sys.platform != "darwin":
        assert all(row.private_bytes and row.private >= row.private_predicted_bytes for row in result.rows)
        assert not any(line[3].startswith("~") for line in cells(result))
    assert not kept.exists()


def test_what_cannot_be_measured_is_refused(
    tiny_checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("max_tokens", "decode_tokens", "rounds"):
        with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} is -1"):
            compare(tiny_checkpoint_dir, dataclasses.replace(OPTIONS, **dict[str, Any]({name: -1})))
    mine = tmp_path / "mine"
    (mine / "fp32").mkdir(parents=True)
    with pytest.raises(OutputError, match="was not made by a comparison"):
        compare(tiny_checkpoint_dir, dataclasses.replace(OPTIONS, keep=mine))
    usage = shutil.disk_usage(tmp_path)
    options = dataclasses.replace(OPTIONS, tokens=text(tmp_path / "t.txt"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=150_000_000))
    with pytest.raises(BudgetError, match=r"logits need .* Lower --max-tokens"):
        compare(tiny_checkpoint_dir, dataclasses.replace(options, context=256))


def quality_of(kl: float) -> Quality:
    return Quality(10, kl, kl, kl, {"p50": kl, "p99": 5 * kl, "max": 9 * kl}, 0.9, 8.0, 1.01)


def row_of(name: str, size: int, kl: float, reference: bool = False, memory: float | None = None) -> Row:
    rate = Spread((100.0, 110.0, 90.0))
    own = quality_of(kl)
    private = Spread((2.0 * size if memory is None else memory,))
    return Row(name, reference, 4.5, size, 64, True, own, own, rate, rate, rate, private, 3 * size, name)


def comparison(*rows: Row) -> Comparison:
    settings = {
        "tokens": {"origin": "a <test>"}, "positions": {"scoring": 10, "decode": 5}, "rounds": 3, "prompt_tokens": 8,
        "new_tokens": 4, "machine": {"cpu": "c", "threads": 2, "onnxruntime": "1"},
    }  # fmt: skip
    return Comparison("<model>", rows, (("int2", "too large & slow"),), settings)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=8))
def test_no_row_of_the_front_is_beaten(points: list[tuple[int, int]]) -> None:
    rows = [row_of(str(i), size, float(kl)) for i, (size, kl) in enumerate(points)]
    best = front(rows, file_size)
    assert best
    assert best.isdisjoint(dominated(rows, file_size))
    assert best | dominated(rows, file_size).keys() == {row.name for row in rows}
    for (i, a), (_, b) in itertools.permutations(enumerate(points), 2):
        if b[0] <= a[0] and b[1] <= a[1] and a != b:
            assert str(i) not in best


def test_a_small_file_may_be_dominated_in_memory() -> None:
    result = comparison(
        row_of("fp32", 900, 0.0, True), row_of("int4", 100, 0.5, memory=150), row_of("int5", 120, 0.2, memory=250),
        row_of("int8", 200, 0.01, memory=240), row_of("int8-b16", 210, 0.02, memory=300),
    )  # fmt: skip
    ranks = {row[0]: row[-1] for row in cells(result)}
    assert ranks == {
        "int4": "file, memory", "int5": "file; dominated", "int8": "file, memory", "int8-b16": "dominated",
        "fp32": "reference",
    }  # fmt: skip
    rows = {row["name"]: row for row in result.to_dict()["rows"]}
    assert {name: row["dominated_by"] for name, row in rows.items() if row["dominated_by"]} == {
        "int5": ["int8"], "int8-b16": ["int8"],
    }  # fmt: skip
    assert [name for name, row in rows.items() if row["pareto"]] == ["fp32", "int4", "int5", "int8"]
    assert "int5 is dominated: int8 is as close in no more memory." in explained(result)


def test_the_page_opens_alone_and_escapes(tmp_path: Path) -> None:
    result = comparison(row_of("fp32", 900, 0.0, True), row_of("int4<b>", 100, 0.5), row_of("int8", 200, 0.00002))
    page = html(result)
    assert "int4&lt;b&gt;" in page
    assert "<model>" not in page
    assert page.count("<svg") == 5
    assert not re.search(r"(src|href)=", page)
    assert [row[0] for row in cells(result)] == ["int4<b>", "int8", "fp32"]
    assert [row[-1] for row in cells(result)] == ["file, memory", "file, memory", "reference"]
    assert "int2 was left out: too large & slow" in explained(result)
    png(result, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_hint_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'matplotlib.*the extra 'report'"):
        png(comparison(row_of("a", 1, 0.1)), tmp_path / "p.png")
    assert not (tmp_path / "p.png").exists()
