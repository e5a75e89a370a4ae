"""``--serve``: the page on the loopback address, the program behind its websocket, and both in a real browser."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

aiohttp = pytest.importorskip("aiohttp", reason="textual-serve (extra serve) is not installed")
pytest.importorskip("textual_serve", reason="textual-serve (extra serve) is not installed")

from browser import CHROMIUM, browser  # noqa: E402 - needs aiohttp
from waiting import PATIENCE_S, wait_until  # noqa: E402

from edgedistill_tui.data.store import Store  # noqa: E402


@contextmanager
def served(bundle: Path, data: Path, *options: str) -> Iterator[str]:
    """``edgedistill chat BUNDLE --serve`` on a free port; its address once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "edgedistill", "chat", str(bundle), "--serve", "--host", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--port", str(port), *options], env={**os.environ, "EDGEDISTILL_DATA": str(data)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        try:
            page(f"127.0.0.1:{port}")
            yield f"127.0.0.1:{port}"
            server.send_signal(signal.SIGINT)
            assert server.wait(300) == 0
        finally:
            server.kill()


def page(address: str, **headers: str) -> str:
    request = urllib.request.Request(f"http://{address}/", headers=headers)
    answers: list[str] = []

    def answered() -> bool:
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                answers.append(str(answer.read().decode()))
        except urllib.error.HTTPError:
            raise
        except OSError:  # it does not listen yet
            return False
        return True

    wait_until(answered, "the server never answered", every_s=0.1)
    return answers[0]


def test_the_page_answers_its_own_websocket_carries_the_first_frame_and_other_pages_are_refused(
    tiny_bundle_dir: Path, tmp_path: Path
) -> None:
    async def first_frame(address: str) -> bytes:
        seen = b""
        async with aiohttp.ClientSession() as session:
            for name, value in (("Origin", "http://elsewhere.example"), ("Host", "elsewhere.example")):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await session.ws_connect(f"ws://{address}/ws", headers={name: value})
                assert refused.value.status == 403
            own = {"Origin": f"http://{address}"}
            async with session.ws_connect(f"ws://{address}/ws?width=80&height=24", headers=own) as stream:
                while b"Sessions" not in seen:
                    message = await stream.receive(timeout=300)
                    assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), f"closed after {seen!r}"
                    seen += message.data if isinstance(message.data, bytes) else message.data.encode()
        return seen

    with served(tiny_bundle_dir, tmp_path) as address:
        assert f"ws://{address}/ws" in page(address)
        assert "//fonts." not in page(address)
        port = address.partition(":")[2]
        assert f"ws://localhost:{port}/ws" in page(address, Host=f"localhost:{port}")
        with pytest.raises(urllib.error.HTTPError, match="403"):
            page(address, Host="elsewhere.example")
        assert b"Chat" in asyncio.run(first_frame(address))
        taken = subprocess.run(
            [sys.executable, "-m", "edgedistill", "tui", "--serve", "--host", "127.0.0.1", "--port", port],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert taken.returncode == 2
        assert taken.stderr.splitlines()[-1].startswith(f"error: Cannot listen on 127.0.0.1, port {port}")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt install chromium")
def test_a_question_in_a_real_browser_and_its_answer(reasoner_dir: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"

    async def talk(address: str) -> None:
        async with browser(tmp_path) as tab:
            await tab.open(f"http://{address}/")
            await tab.wait_for("ready")
            await tab.type("What is 17 + 25?")
            await tab.wait_for("What is 17 + 25?")
            await tab.press("Enter", 13, text="\r")
            shown = await tab.wait_for("boxed{42}")
            assert "What is 17 + 25?" in shown
            await tab.wait_for("tok at")
            await tab.press("F3", 114)  # a key of the program that the page must not keep to itself
            await tab.wait_for("Search titles")
            assert {asked.split("/")[2] for asked in tab.requested} == {address}

    with served(reasoner_dir, data, "--temperature", "0") as address:
        asyncio.run(talk(address))
    (summary,) = Store(data / "sessions.db").sessions()
    assert summary.title == "What is 17 + 25?"
    question, reply = Store(data / "sessions.db").load(summary.id).path()
    assert question.content == "What is 17 + 25?"
    assert "42" in reply.content
    assert reply.finish_reason == "stop"
