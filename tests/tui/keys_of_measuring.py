"""What each key of the pages that measure does, one case a key."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from keys_of_chat import quiet
from keys_of_pages import copy_bundle
from scene import Scene, proves
from test_tui_measuring import fake_trace

from edgedistill.runtime.measure.latency_trace import TraceEvent

if TYPE_CHECKING:
    from collections.abc import Iterator


def endless_trace(path: str, *, seconds: float, cancel: threading.Event) -> Iterator[TraceEvent]:
    """Measures until it is stopped if it is asked for an hour, else as quickly as the fake one."""
    if seconds < 3600:
        yield from fake_trace(path, seconds=seconds, cancel=cancel)
        return
    yield TraceEvent("loaded", seconds=0.2)
    cancel.wait()


# ---- profiler ----------------------------------------------------------------------------------------------------


async def profiler(scene: Scene) -> None:
    """The page, with nothing measured since."""
    await quiet(scene)
    await scene.go("profiler")
    scene.screen.live, scene.screen.seconds = None, 20.0
    await scene.pilot.pause()


async def _measured(scene: Scene) -> None:
    scene.screen.action_start()
    await scene.until(lambda: not scene.screen.running)


@proves("ProfilerScreen", "start")
async def _start(scene: Scene) -> None:
    before = len(scene.screen.runs)
    await scene.press()
    await scene.until(lambda: not scene.screen.running and len(scene.screen.runs) == before + 1)
    assert "decode speed" in scene.text


@proves("ProfilerScreen", "stop")
async def _stop_measuring(scene: Scene) -> None:
    scene.screen.seconds = 3600.0
    before = len(scene.screen.runs)
    scene.screen.action_start()
    await scene.press()
    await scene.until(lambda: not scene.screen.running)
    assert len(scene.screen.runs) == before
    assert "Stopped" in scene.text


@proves("ProfilerScreen", "time")
async def _time(scene: Scene) -> None:
    await scene.press()
    await scene.until_screen("Ask")
    await scene.type("backspace", "backspace", "7", "enter")
    await scene.until_screen("ProfilerScreen")
    assert scene.screen.seconds == 7


def _writes(suffix: str) -> None:
    @proves("ProfilerScreen", f"export('{suffix}')")
    async def _(scene: Scene) -> None:
        await _measured(scene)
        before = set(scene.directory.glob(f"profile-*{suffix}"))
        await scene.press()
        (made,) = set(scene.directory.glob(f"profile-*{suffix}")) - before
        assert made.stat().st_size > 500


for _suffix in (".json", ".csv", ".svg"):
    _writes(_suffix)


# ---- A/B ---------------------------------------------------------------------------------------------------------


async def ab(scene: Scene) -> None:
    """The page, with a prompt, the same bundle on both sides."""
    await quiet(scene)
    mine = copy_bundle(scene)
    await scene.go("ab")
    scene.screen.prompt.value, scene.screen.seed.value, scene.screen.parting = "How?", "7", None
    for side in scene.screen.sides:
        side.clear()
        side.path = mine
    scene.screen.prompt.focus()
    await scene.pilot.pause()


@proves("CompareScreen", "run")
async def _run_both(scene: Scene) -> None:
    await scene.press()
    await scene.until(lambda: not scene.screen.running and scene.screen.parting is not None)
    assert scene.screen.parting.equal
    assert [r.sampling.generation.seed for r in scene.engine.requests] == [7, 7]


@proves("CompareScreen", "on_input_submitted")
async def _enter_runs_both(scene: Scene) -> None:
    await scene.type("enter")
    await scene.until(lambda: not scene.screen.running and scene.screen.parting is not None)


@proves("CompareScreen", "stop")
async def _stop_both(scene: Scene) -> None:
    scene.engine.hold()
    scene.screen.action_run()
    await scene.until(lambda: bool(scene.engine.requests))
    await scene.press()
    await scene.until(lambda: not scene.screen.running)
    assert len(scene.engine.requests) == 1


def _chooses(number: int) -> None:
    @proves("CompareScreen", f"choose({number})")
    async def _(scene: Scene) -> None:
        scene.screen.sides[number].path = None
        await scene.press()
        await scene.until_screen("Choose")
        await scene.type("enter")
        await scene.until_screen("CompareScreen")
        assert scene.screen.sides[number].path is not None


_chooses(0)
_chooses(1)


@proves("CompareScreen", "on_button_pressed")
async def _click_a_side(scene: Scene) -> None:
    for number in (0, 1):
        scene.screen.sides[number].path = None
        await scene.pilot.click(f"#side-{number}")
        await scene.until_screen("Choose")
        await scene.pilot.click("OptionList", offset=(3, 0))
        await scene.until_screen("CompareScreen")
        assert scene.screen.sides[number].path is not None


# ---- consistency -------------------------------------------------------------------------------------------------


async def consistency(scene: Scene) -> None:
    """The page, with a question and a number."""
    await quiet(scene)
    await scene.go("consistency")
    scene.screen.prompt.value, scene.screen.samples.value = "How?", "12"
    scene.screen.prompt.focus()
    await scene.pilot.pause()


@proves("ConsistencyScreen", "run")
async def _sample(scene: Scene) -> None:
    await scene.press()
    await scene.until(lambda: not scene.screen.running and scene.screen.count.total == 12)
    assert scene.screen.count.ranked()[0] == ("32", 8, True)


@proves("ConsistencyScreen", "on_input_submitted")
async def _enter_samples(scene: Scene) -> None:
    scene.screen.samples.focus()
    await scene.type("enter")
    await scene.until(lambda: not scene.screen.running and scene.screen.wanted == 12)


@proves("ConsistencyScreen", "stop")
async def _stop_sampling(scene: Scene) -> None:
    scene.engine.hold()
    scene.screen.action_run()
    scene.engine.allow(5)
    await scene.until(lambda: scene.screen.count.total == 5)
    await scene.press()
    await scene.until(lambda: not scene.screen.running)
    assert scene.screen.count.total == 5
    assert "stopped" in scene.text
