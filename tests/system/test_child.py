"""A function in a process of its own: results, progress, errors, limits, and the end of either side."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import child_functions as functions
import psutil
import pytest

from edgedistill.errors import ChildError, ExportError, UsageError
from edgedistill.system.child import iterate_in_child, run_in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MB = 1 << 20


class Stages:
    def __init__(self, leave_at: int = 1 << 30) -> None:
        self.seen: list[Any] = []
        self.done, self.leave_at = 0, leave_at

    def begin(self, stage: str, total: int, unit: str) -> None:
        self.seen.append((stage, total, unit))

    def advance(self, amount: int) -> None:
        self.done += amount
        if self.done >= self.leave_at:
            raise UsageError("The user left.")

    def end(self) -> None:
        self.seen.append(self.done)


def until(condition: Callable[[], bool]) -> None:
    """A minute at most."""
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("it never came to pass")


def nothing_runs() -> bool:
    return not [p for p in psutil.Process().children() if "edgedistill.system.child" in p.cmdline()]


def test_the_result_comes_back_and_prints_do_not_disturb_it() -> None:
    result = run_in_child(functions.add, 40, b=2)
    assert result["sum"] == 42
    assert result["process"] != os.getpid()
    assert nothing_runs()


def test_progress_is_passed_on_in_order_and_in_full() -> None:
    stages = Stages()
    assert run_in_child(functions.count, 5000, progress=stages) == "é" * 5000
    assert stages.seen == [("counting", 5000, "items"), 5000]


def test_an_exception_of_the_progress_ends_the_process() -> None:
    with pytest.raises(UsageError, match="The user left"):
        run_in_child(functions.count, 5000, progress=Stages(leave_at=1))
    assert nothing_runs()


def test_values_come_as_they_are_yielded_and_the_process_ends_with_the_loop() -> None:
    assert list(iterate_in_child(functions.numbers, 3)) == [0, 1, 2]
    running = iterate_in_child(functions.numbers, 100_000)
    assert next(running) == 0
    assert not nothing_runs()
    running.close()  # type: ignore[attr-defined]
    assert nothing_runs()


def test_errors_keep_their_class_and_crashes_their_last_words() -> None:
    with pytest.raises(ExportError, match=r"No weights\.") as own:
        run_in_child(functions.fail, "own")
    assert own.value.hint == "Look elsewhere."
    for kind, expected, message in (
        ("value", "exception", "ValueError: 7 is not 8"),
        ("memory", "memory", "MemoryError"),
        ("exit", "crash", "exit code 3"),
        ("crash", "crash", r"exit code -\d+: the last words"),
    ):
        with pytest.raises(ChildError, match=message) as error:
            run_in_child(functions.fail, kind)
        assert error.value.kind == expected


def test_a_function_that_no_other_process_can_find_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a function of a module"):
        run_in_child(lambda: None)


def test_time_is_limited() -> None:
    with pytest.raises(ChildError, match=r"longer than 0\.5 s") as error:
        run_in_child(functions.wait, time_limit=0.5)
    assert error.value.kind == "time"
    assert nothing_runs()


def test_memory_is_limited_and_what_fits_is_not() -> None:
    assert run_in_child(functions.allocate, 64 * MB, memory_limit=256 * MB) == 64
    with pytest.raises(ChildError) as error:
        run_in_child(functions.allocate, 2048 * MB, memory_limit=256 * MB)
    assert error.value.kind == "memory"


def test_cancelling_ends_whatever_runs(tmp_path: Path) -> None:
    cancel, path = threading.Event(), tmp_path / "running"

    def stop() -> None:
        until(path.exists)
        cancel.set()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(ChildError) as error:
        run_in_child(functions.wait, str(path), cancel=cancel)
    thread.join()
    assert error.value.kind == "cancelled"
    assert not psutil.pid_exists(int(path.read_text()))


def test_a_child_ends_with_its_parent_and_tidies_up(tmp_path: Path) -> None:
    path, seen = tmp_path / "grandchild", threading.Event()

    def kill_the_parent() -> None:
        until(path.exists)
        until(lambda: bool(path.read_text()))
        (child,) = [p for p in psutil.Process().children() if "edgedistill.system.child" in p.cmdline()]
        child.kill()
        seen.set()

    threading.Thread(target=kill_the_parent).start()
    with pytest.raises(ChildError, match=r"exit code -9"):
        run_in_child(functions.parent, str(path))
    assert seen.is_set()
    until(lambda: not psutil.pid_exists(int(path.read_text())))
    assert (tmp_path / "grandchild.tidied").exists()
