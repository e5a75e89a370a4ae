"""What the tests of child processes run in them."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.errors import ExportError
from edgedistill.system.child import run_in_child

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.progress import Progress


def add(a: int, *, b: int) -> dict[str, int]:
    print("what is printed is no part of the protocol")
    subprocess.run([sys.executable, "-c", "print('{}')"], check=True)
    return {"sum": a + b, "process": os.getpid()}


def count(most: int, progress: Progress) -> str:
    progress.begin("counting", most, "items")
    for _ in range(most):
        progress.advance(1)
    progress.end()
    return "é" * most


def numbers(most: int, path: str = "") -> Iterator[int]:
    try:
        for number in range(most):
            yield number
            time.sleep(0.01)
    finally:
        if path:
            Path(path).write_text("ended")


def fail(kind: str) -> Any:
    if kind == "own":
        raise ExportError("No weights.", hint="Look elsewhere.")
    if kind == "memory":
        raise MemoryError
    if kind == "value":
        raise ValueError("7 is not 8")
    if kind == "exit":
        sys.exit(3)
    sys.stderr.write("the last words\n")
    ctypes.string_at(0)


def allocate(size: int) -> int:
    held = []
    for _ in range(size >> 20):
        held.append(bytearray(1 << 20))
    return len(held)


def wait(path: str = "") -> None:
    if path:
        Path(path).write_text(str(os.getpid()))
    try:
        time.sleep(600)
    finally:
        if path:
            Path(path + ".tidied").write_text("")


def parent(path: str) -> None:
    run_in_child(wait, path)
