"""Helper processes of chat templates, used again: one whose model was closed renders for the next that is opened.

To start one takes 70 ms of the processor, which hundreds of tests that open a bundle would each pay. A helper that was
stopped, or that belongs to the process this one was forked from, is not used again.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from edgedistill.runtime.text import chat_template

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST = 4
_REAL = chat_template._Worker
_idle: list[_Reused] = []


class _Reused(_REAL):
    """Ended by ``close`` only after a request without a reply, or where there are enough of them."""

    def __init__(self) -> None:
        super().__init__()
        self.owner, self.asked, self.answered = os.getpid(), 0, 0

    def ask(self, request: dict[str, Any], deadline_s: float) -> dict[str, Any] | None:
        self.asked += 1
        reply = super().ask(request, deadline_s)
        self.answered += reply is not None
        return reply

    def close(self) -> None:
        if self.asked == self.answered and len(_idle) < MOST and self not in _idle:
            self._fresh = True  # the next deadline, too, has patience with a busy machine
            _idle.append(self)
        else:
            super().close()


def _opened() -> _Reused:
    while _idle:
        worker = _idle.pop()
        if worker.owner == os.getpid() and worker._process.poll() is None:
            return worker
    return _Reused()


@pytest.fixture(autouse=True, scope="session")
def _helpers_are_used_again() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chat_template, "_Worker", _opened)
        yield
    for worker in _idle:
        worker._finalizer()


@pytest.fixture
def new_helpers(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the helpers themselves."""
    monkeypatch.setattr(chat_template, "_Worker", _REAL)
