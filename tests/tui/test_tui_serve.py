"""``--serve``: the page on the loopback address, the program behind its websocket, and both in a real browser."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("aiohttp", reason="textual-serve (extra serve) is not installed")
pytest.importorskip("textual_serve", reason="textual-serve (extra serve) is not installed")

import aiohttp
from aiohttp import web
from browser import CHROMIUM, browser
from waiting import PATIENCE_S

from edgedistill_tui.data.store import Store


@dataclass(frozen=True)
class Running:
    """A server: where it listens, the token it printed, its process."""

    address: str
    token: str
    process: subprocess.Popen[str]

    @property
    def cookies(self) -> dict[str, str]:
        return {f"edgedistill-{self.address.partition(':')[2]}": self.token}

    def children(self) -> list[psutil.Process]:
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found


@contextmanager
def served(bundle: Path, data: Path, *options: str) -> Iterator[Running]:
    """``edgedistill chat BUNDLE --serve`` on a free port, once it has said where."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "edgedistill", "chat", str(bundle), "--serve", "--host", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--port", str(port), *options], env={**os.environ, "EDGEDISTILL_DATA": str(data)},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as server:  # fmt: skip
        try:
            assert server.stdout is not None
            found = re.search(rf"http://127.0.0.1:{port}/\?token=(\S{{32,}})", server.stdout.readline())
            assert found is not None
            yield Running(f"127.0.0.1:{port}", found[1], server)
            if server.poll() is None:
                server.send_signal(signal.SIGINT)
                assert server.wait(300) == 0
        finally:
            server.kill()


async def status(session: aiohttp.ClientSession, url: str, **headers: str) -> int:
    async with session.get(url, headers=headers, allow_redirects=False) as answer:
        return int(answer.status)


async def connect(session: aiohttp.ClientSession, running: Running, **headers: str) -> aiohttp.ClientWebSocketResponse:
    url = f"ws://{running.address}/ws?width=80&height=24"
    return await session.ws_connect(url, headers={"Origin": f"http://{running.address}", **headers})


async def read_until(stream: aiohttp.ClientWebSocketResponse, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        message = await stream.receive(timeout=300)
        assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), f"closed after {seen!r}"
        seen += message.data if isinstance(message.data, bytes) else message.data.encode()
    return seen


def test_only_the_printed_address_opens_the_page_and_its_websocket(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    async def steps(running: Running) -> None:
        base = f"http://{running.address}"
        port = running.address.partition(":")[2]
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as stranger:
            for path in ("/", "/ws", "/static/js/textual.js", "/download/x", "/?token=", f"/?token={'x' * 32}"):
                assert await status(stranger, base + path) == 403, path
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await connect(stranger, running)
            assert refused.value.status == 403
        assert running.children() == []
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as own:
            async with own.get(f"{base}/?token={running.token}") as answer:  # follows to the page, with the cookie
                text = await answer.text()
                assert "token" not in str(answer.url)
                assert running.token not in text
                assert answer.headers["X-Frame-Options"] == "DENY"
            assert f"ws://{running.address}/ws" in text
            assert "//fonts." not in text
            for name in ("elsewhere.example", f"elsewhere.example:{port}", "127.0.0.1.evil.example", "0x7f000001"):
                assert await status(own, base, Host=name) == 403, name
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    await connect(own, running, Host=name)
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await connect(own, running, Origin="http://elsewhere.example")
        async with aiohttp.ClientSession(cookies=running.cookies) as own:
            async with own.get(base, headers={"Host": f"localhost:{port}"}) as answer:
                assert f"ws://localhost:{port}/ws" in await answer.text()
            stream = await connect(own, running)
            assert b"Chat" in await read_until(stream, b"Sessions")
            await stream.close()

    with served(tiny_bundle_dir, tmp_path) as running:
        asyncio.run(steps(running))
        port = running.address.partition(":")[2]
        taken = subprocess.run(
            [sys.executable, "-m", "edgedistill", "tui", "--serve", "--host", "127.0.0.1", "--port", port],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert taken.returncode == 2
        assert taken.stderr.splitlines()[-1].startswith(f"error: Cannot listen on 127.0.0.1, port {port}")


def test_sessions_are_limited_and_end_with_the_page_and_with_the_server(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    async def steps(running: Running) -> list[psutil.Process]:
        async with aiohttp.ClientSession(cookies=running.cookies) as own:
            first = await connect(own, running)
            await read_until(first, b"Sessions")
            (process,) = running.children()
            assert await status(own, f"http://{running.address}/") == 503
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await connect(own, running)
            assert refused.value.status == 503
            await first.send_str("no json")  # ends this session and nothing else
            await asyncio.to_thread(process.wait, PATIENCE_S)
            await first.close()
            while await status(own, f"http://{running.address}/") == 503:
                await asyncio.sleep(0.05)
            second = await connect(own, running)
            await read_until(second, b"Sessions")
            await second.send_json(["resize", {"width": 10**12, "height": "x"}])
            found = running.children()
            assert len(found) == 1
            running.process.kill()  # it cannot tell anybody
            return found

    with served(tiny_bundle_dir, tmp_path, "--max-sessions", "1") as running:
        left = asyncio.run(steps(running))
        running.process.wait(PATIENCE_S)
        assert psutil.wait_procs(left, timeout=PATIENCE_S)[1] == []


def test_connections_that_ask_nothing_are_closed() -> None:
    from edgedistill.cli import serving

    async def steps() -> None:
        server = serving.LocalServer(["true"], "127.0.0.1", 0, names=["proxy.example"])
        runner = cast(Any, web.AppRunner(await server._make_app(), access_log=None))
        await runner.setup()
        site = cast(Any, web.TCPSite(runner, "127.0.0.1", 0))
        await site.start()
        port = site._server.sockets[0].getsockname()[1]
        try:
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(serving.IDLE_CONNECTIONS + 3)]
            silent[-1][1].write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")  # and never the end of its headers
            await asyncio.sleep(0.1)
            server._close_idle(runner.server)
            ended = [await asyncio.wait_for(reader.read(), 30) for reader, _ in silent[:3]]
            assert ended == [b""] * 3
            assert len(runner.server.connections) == serving.IDLE_CONNECTIONS
            server._idle_since = dict.fromkeys(runner.server.connections, -serving.IDLE_S - 1e6)
            server._close_idle(runner.server)
            await asyncio.wait_for(silent[-1][0].read(), 30)
            while runner.server.connections:
                await asyncio.sleep(0.01)
            async with aiohttp.ClientSession() as own:
                url = f"http://127.0.0.1:{port}/static/js/textual.js?token={server._token}"
                assert await status(own, url) == 200
                assert await status(own, url, Host="proxy.example") == 200
                assert await status(own, url, Host="other.example") == 403
        finally:
            await runner.cleanup()

    asyncio.run(steps())


@pytest.mark.parametrize(
    ("host", "asked", "known"),
    [("0.0.0.0", socket.gethostname(), True), ("0.0.0.0", "localhost", True), ("0.0.0.0", "rebound.example", False),
     ("192.0.2.7", "192.0.2.7", True), ("192.0.2.7", "192.0.2.8", False)],
)  # fmt: skip
def test_names_that_a_server_answers_to(host: str, asked: str, known: bool) -> None:
    from edgedistill.cli.serving import LocalServer

    assert (asked.lower() in LocalServer(["true"], host, 8000)._names) is known


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here; on Debian: apt install chromium")
def test_a_question_in_a_real_browser_and_its_answer(reasoner_dir: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"

    async def talk(running: Running) -> None:
        address = running.address
        async with browser(tmp_path) as tab:
            await tab.open(f"http://{address}/?token={running.token}")
            await tab.wait_for("ready")
            await tab.type("What is 17 + 25?")
            await tab.wait_for("What is 17 + 25?")
            await tab.press("Enter", 13, text="\r")
            shown = await tab.wait_for("is 42.")  # the finished reply; LaTeX stands in it only while it is written
            assert "What is 17 + 25?" in shown
            await tab.wait_for("tok at")
            await tab.press("F3", 114)  # a key of the program that the page must not keep to itself
            await tab.wait_for("Search titles")
            assert {asked.split("/")[2] for asked in tab.requested} == {address}

    with served(reasoner_dir, data, "--temperature", "0") as running:
        asyncio.run(talk(running))
    (summary,) = Store(data / "sessions.db").sessions()
    assert summary.title == "What is 17 + 25?"
    question, reply = Store(data / "sessions.db").load(summary.id).path()
    assert question.content == "What is 17 + 25?"
    assert "42" in reply.content
    assert reply.finish_reason == "stop"
