"""The pages that measure, driven by keys: profiler, A/B, consistency, and one of them at a time."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from fake_engine import FACTS, FakeEngine, ask, chat_of, drive, make_app, services, until
from test_tui_pages import ANSWER, app_of, page_text

from edgedistill.errors import GenerationError
from edgedistill.runtime.measure.latency_trace import TraceEvent
from edgedistill_tui.data.bundles import flat_predictions
from edgedistill_tui.divergence import part_texts, part_tokens
from edgedistill_tui.screens.dialogs import Ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from textual.pilot import Pilot


def fake_trace(path: str, *, seconds: float, cancel: Any) -> Iterator[TraceEvent]:
    """What a real trace gives, without a model."""
    yield TraceEvent("loaded", seconds=0.2, rss=80 << 20)
    for tokens in (0, 256, 512):
        yield TraceEvent("memory", tokens=tokens, rss=(80 << 20) + 4096 * tokens, kv=2048 * tokens)
    for tokens in (16, 64, 256):
        yield TraceEvent("prefill", tokens=tokens, seconds=tokens / (1000 + tokens))
    for number in range(20):
        steps = tuple(0.02 + 0.0005 * ((7 * number + i) % 11) for i in range(10))
        yield TraceEvent("decode", tokens=10, seconds=sum(steps), at=0.25 * number, rss=90 << 20, steps=steps)
    yield TraceEvent("done")


def test_profiler_measures_compares_and_exports(tmp_path: Path) -> None:
    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press("f5")
        await pilot.pause()
        page: Any = pilot.app.screen
        await pilot.press("j")  # nothing yet
        await pilot.press("t")
        await until(pilot, lambda: isinstance(pilot.app.screen, Ask))
        await pilot.press("backspace", "backspace", "5", "enter")
        await until(pilot, lambda: pilot.app.screen is page)
        assert page.seconds == 5
        for runs in (1, 2):
            await pilot.press("s")
            await until(pilot, lambda runs=runs: not page.running and len(page.runs) == runs)  # type: ignore[misc]
        assert "p95" in page_text(pilot)
        assert "decode speed" in page_text(pilot)
        page.table.move_cursor(row=1)
        await pilot.press("j", "c", "v")
        await pilot.resize_terminal(60, 20)
        await pilot.pause()

    given = services(tmp_path, FakeEngine(ANSWER), trace=fake_trace)
    app = drive(make_app(tmp_path, FakeEngine(ANSWER), services=given), steps, (120, 40))
    value = json.loads((tmp_path / "profile-demo-bundle.json").read_text())
    assert value["summary"]["decode_tps"] == pytest.approx(44.4, abs=1)
    assert value["machine"] == "Test CPU, 2 cores"
    rows = list(csv.DictReader((tmp_path / "profile-demo-bundle.csv").open()))
    assert sum(row["series"] == "decode_tps_at_s" for row in rows) == 20
    assert sum(int(row["y"]) for row in rows if row["series"] == "step_count_from_ms") == 200
    drawn = ElementTree.parse(tmp_path / "profile-demo-bundle.svg").getroot()
    assert drawn.tag.endswith("svg")
    assert {"decode speed over time", "step latency", "memory over context"} <= set(drawn.itertext())
    assert len(drawn.findall(".//{*}rect")) > 8  # the latencies
    assert len(app.services.store.runs("Test CPU, 2 cores")) == 2
    assert app.services.store.runs("another machine") == []


def test_a_profiler_run_that_fails_or_is_stopped_is_not_kept(tmp_path: Path) -> None:
    def failing(path: str, *, seconds: float, cancel: Any) -> Iterator[TraceEvent]:
        yield TraceEvent("loaded", seconds=0.2)
        raise GenerationError("Out of memory.")

    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press("f5", "s")
        page: Any = pilot.app.screen
        await until(pilot, lambda: "Out of memory" in page_text(pilot))
        assert not page.running

    given = services(tmp_path, FakeEngine(ANSWER), trace=failing)
    app = drive(make_app(tmp_path, FakeEngine(ANSWER), services=given), steps)
    assert app.services.store.runs("Test CPU, 2 cores") == []


def test_ab_marks_the_first_token_that_differs(tmp_path: Path, tiny_bundle_dir: Path) -> None:
    shutil.copytree(tiny_bundle_dir, tmp_path / "work" / "other")
    other = FakeEngine([("answer", "There are 23 apples.")], facts=replace(FACTS, bundle="other"))
    engine = FakeEngine(ANSWER)

    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press("f6")
        await pilot.pause()
        page: Any = pilot.app.screen
        await pilot.press(*"How?", "enter")
        await until(pilot, lambda: not page.running and page.parting is not None)
        await pilot.pause()
        assert (page.parting.token, page.parting.common) == (10, "There are ")
        assert (page.parting.first_token, page.parting.second_token) == ("3", "2")
        assert "differ from token 11" in page_text(pilot)
        assert engine.requests[-1].sampling == other.requests[-1].sampling
        assert engine.requests[-1].sampling.generation.seed is not None
        await pilot.press("alt+b")
        await pilot.pause()
        await pilot.press("escape")

    app = make_app(tmp_path, lambda path: other if path.name == "other" else engine)
    drive(app, steps, (120, 40))


def test_predictions_by_context_become_one_rate() -> None:
    manifest = {"ram_bytes": 5, "speed": {"decode_tps": {"4096": 20.0, "128": 45.0}, "prefill_tps": {"64": 900.0}}}
    assert flat_predictions(manifest) == manifest | {"decode_tps": 45.0, "prefill_tps": 900.0}
    assert flat_predictions({}) == {}


def test_parting_of_texts_and_tokens() -> None:
    def decode(ids: Any) -> str:
        return bytes(ids).decode("utf-8", "replace")

    equal = part_tokens(b"same", b"same", decode)
    assert equal.equal
    assert equal.token is None
    shorter = part_tokens(b"same", b"same and more", decode)
    assert (shorter.token, shorter.first, shorter.second) == (4, "", " and more")
    inside = part_tokens("é".encode(), "è".encode(), decode)  # both begin with the same byte
    assert (inside.common, inside.first, inside.second) == ("", "é", "è")
    assert part_texts("abc", "abd").second == "d"


def test_consistency_counts_live_with_verifications_statistics(tmp_path: Path) -> None:
    engine = FakeEngine(ANSWER, answers=["32", "32", "32", None, "23"])

    async def steps(pilot: Pilot[None]) -> None:
        await ask(pilot, "How many?")
        await pilot.press("f7")
        await pilot.pause()
        page: Any = pilot.app.screen
        assert page.prompt.value == "How many?"
        page.samples.value = "1"
        await pilot.press("enter")
        assert not page.wanted
        page.samples.value = "50"
        await pilot.press("ctrl+r")
        await until(pilot, lambda: not page.running and page.count.total == 50)
        await pilot.pause()
        assert page.count.ranked() == [("32", 30, True), ("23", 10, True), ("unparsed", 10, False)]
        share, _, entropy = page.count.estimates()
        assert share.value == 0.6
        assert 0.4 < share.interval.low < 0.6 < share.interval.high < 0.8
        assert entropy.value > 1.3  # 1.37 bits of three classes, and what the missing answers may hold
        assert "60.0 [" in page_text(pilot)
        assert "bits" in page_text(pilot)

    drive(make_app(tmp_path, engine), steps)


def test_one_model_does_one_thing_at_a_time(tmp_path: Path, tiny_bundle_dir: Path) -> None:
    engine = FakeEngine(ANSWER, answers=["32"])
    given = services(tmp_path, engine, trace=fake_trace)

    async def steps(pilot: Pilot[None]) -> None:
        app, chat = app_of(pilot), chat_of(pilot)
        pages: dict[str, Any] = {name: app.page(name) for name in ("ab", "profiler", "consistency")}

        async def refused_everywhere(but: str) -> None:
            requests = len(engine.requests)
            for name, page in pages.items():
                app.go(name)
                await pilot.pause()
                page.action_start() if name == "profiler" else page.action_run()
                assert page.running == (name == but)
            app.go("chat")
            await pilot.pause()
            await pilot.press("alt+r", "ctrl+g")
            app.open_bundle(tiny_bundle_dir)
            await pilot.pause()
            assert app.loading is None
            assert chat.busy == (but == "chat")
            assert len(engine.requests) == requests

        await ask(pilot, "How many?")
        engine.hold()
        await ask(pilot, "And now?", wait=False)
        await refused_everywhere("chat")
        await pilot.press("escape")
        await until(pilot, lambda: not chat.busy)
        app.go("consistency")
        await pilot.pause()
        pages["consistency"].action_run()
        await refused_everywhere("consistency")
        chat.prompt.insert("Impatient")
        await pilot.press("enter")
        await pilot.pause()
        assert (chat.busy, chat.prompt.text) == (False, "Impatient")
        assert any("Samples are being drawn" in notice.message for notice in app._notifications)
        pages["consistency"].stop()
        await until(pilot, lambda: not pages["consistency"].running)
        await pilot.press("enter")
        await pilot.pause()
        assert chat.busy
        chat.stop()
        await until(pilot, lambda: not chat.busy)

    drive(make_app(tmp_path, engine, services=given), steps)
