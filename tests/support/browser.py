"""A headless Chromium, driven through its DevTools protocol: open a page, type, read what its terminal shows."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--remote-debugging-port=0",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1100,700", "about:blank",
)  # fmt: skip
# xterm.js draws into a canvas; its own buffer of lines is what can be read. The page keeps it in a property "terminal".
_FIND_TERMINAL = """
Object.defineProperty(Object.prototype, "terminal", {
  configurable: true,
  set(value) {
    if (value && value.buffer) window.seen = value;
    Object.defineProperty(this, "terminal", {value, writable: true, configurable: true, enumerable: true});
  },
});
"""
_READ = """(() => {
  if (!window.seen) return "";
  const lines = window.seen.buffer.active;
  return Array.from({length: lines.length}, (_, i) => lines.getLine(i).translateToString(true)).join("\\n");
})()"""
WAIT_S = PATIENCE_S


class Page:
    """One page. ``requested`` are the addresses that it asked for."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.requested: list[str] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the protocol and its answer."""
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await self._socket.receive_json(timeout=WAIT_S)
            if message.get("method") in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                asked = message["params"]
                self.requested.append(asked.get("url") or asked["request"]["url"])
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result

    async def open(self, address: str) -> None:
        """Go there."""
        for domain in ("Page", "Network", "Runtime"):
            await self.call(f"{domain}.enable")
        await self.call("Page.addScriptToEvaluateOnNewDocument", source=_FIND_TERMINAL)
        await self.call("Page.navigate", url=address)

    async def text(self) -> str:
        """What the terminal in the page shows."""
        found = await self.call("Runtime.evaluate", expression=_READ, returnByValue=True)
        return str(found["result"].get("value", ""))

    async def wait_for(self, words: str) -> str:
        """The terminal's text once it holds ``words``."""
        until = time.monotonic() + WAIT_S
        while words not in (text := await self.text()):
            assert time.monotonic() < until, f"{words!r} never came:\n{text}"
            await asyncio.sleep(0.1)
        return text

    async def evaluate(self, expression: str) -> Any:
        """A value of the page's script."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return found["result"].get("value")

    async def type(self, text: str) -> None:
        """Letters, as a keyboard gives them."""
        for letter in text:
            await self.call("Input.dispatchKeyEvent", type="char", text=letter)

    async def press(self, key: str, code: int, *, text: str = "", modifiers: int = 0) -> None:
        """A key down and up; ``modifiers`` 2 is Ctrl."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code, "modifiers": modifiers}
        await self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)


@asynccontextmanager
async def browser(directory: Path) -> AsyncIterator[Page]:
    """A browser with an empty page; its processes are gone afterwards."""
    assert CHROMIUM is not None
    profile = directory / "chromium"
    process = subprocess.Popen(
        [CHROMIUM, f"--user-data-dir={profile}", *_OPTIONS],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "HOME": str(directory)},
    )  # fmt: skip
    try:
        port = await _port(profile, process)
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                (found,) = [one for one in await answer.json(content_type=None) if one["type"] == "page"]
            async with session.ws_connect(found["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Page(socket)
    finally:
        # All of its processes are in one group, and none of them has anything to save.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(300)


async def _port(profile: Path, process: subprocess.Popen[bytes]) -> int:
    said = profile / "DevToolsActivePort"
    until = time.monotonic() + WAIT_S
    while True:
        lines = said.read_text().splitlines() if said.exists() else []
        if len(lines) >= 2:
            return int(lines[0])
        assert process.poll() is None, f"chromium ended with {process.returncode}"
        assert time.monotonic() < until, "chromium never listened"
        await asyncio.sleep(0.05)
