from __future__ import annotations

import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from edgedistill.system import huge_pages
from edgedistill.system.huge_pages import HUGE_PAGE, filled_regions, use_huge_pages

MB = 1 << 20


def region(start: int, size: int, rss: int, flags: str = "rw-p", inode: int = 0, name: str = "") -> str:
    header = f"{start:x}-{start + size:x} {flags} 00000000 00:00 {inode} {name}"
    return f"{header}\nSize: {size // 1024} kB\nRss: {rss // 1024} kB\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (region(3 * MB, 8 * MB, 8 * MB), [(4 * MB, 10 * MB)]),
        (region(4 * MB, 6 * MB, 6 * MB, name="[heap]"), [(4 * MB, 10 * MB)]),
        (region(4 * MB, 8 * MB, 1 * MB), []),  # a reserved stack
        (region(4 * MB, 8 * MB, 8 * MB, name="[stack]"), []),
        (region(4 * MB, 8 * MB, 8 * MB, inode=7, name="/weights.bin"), []),
        (region(4 * MB, 8 * MB, 8 * MB, flags="r--p"), []),
        (region(4 * MB, 8 * MB, 8 * MB, flags="rw-s"), []),
        (region(5 * MB, 2 * MB, 2 * MB), []),  # no whole huge page inside
        ("", []),
        ("nonsense\nRss: 10 kB\n", []),
    ],
)
def test_only_large_filled_private_memory_is_chosen(text: str, expected: list[tuple[int, int]]) -> None:
    assert list(filled_regions(text)) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_contents_survive_and_the_region_is_seen() -> None:
    data = np.random.default_rng(0).integers(0, 256, 16 * MB, dtype=np.uint8)
    before = data.copy()
    total = use_huge_pages(gently=True)
    np.testing.assert_array_equal(data, before)
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if setting.exists():
        assert total >= 16 * MB - 2 * HUGE_PAGE


@pytest.mark.parametrize("error", [None, RuntimeError("can't start new thread")])
def test_the_background_ends_by_itself_and_may_fail_to_start(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = threading.Event()
    monkeypatch.setattr(huge_pages, "use_huge_pages", lambda *, gently: called.set() if gently else None)
    monkeypatch.setattr(sys, "platform", "linux")
    if error is not None:
        monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=error))
    huge_pages.use_huge_pages_in_background(huge_pages.LEAST)
    assert error is not None or called.wait(60)


def test_a_small_model_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=AssertionError))
    huge_pages.use_huge_pages_in_background(huge_pages.LEAST - 1)
