"""For all tests of the UI: screens that draw as soon as they can, and the built-in model as a bundle."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import pytest

from edgedistill_tui.frames import Pace
from edgedistill_tui.screens import reply_run

if TYPE_CHECKING:
    pass


@pytest.fixture(autouse=True)
def _drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing may take all of a core: the pauses that leave it to a model would be most of the tests' time."""
    monkeypatch.setattr(reply_run, "Pace", functools.partial(Pace, share=1e6))
