"""``--serve``: the page on the loopback address, and the program that its websocket starts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

aiohttp = pytest.importorskip("aiohttp", reason="textual-serve (extra serve) is not installed")
pytest.importorskip("textual_serve", reason="textual-serve (extra serve) is not installed")


@pytest.fixture
def address(tiny_bundle_dir: Path, tmp_path: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "edgedistill", "chat", str(tiny_bundle_dir), "--serve", "--host", "127.0.0.1"]
    with subprocess.Popen(
        [*command, "--port", str(port)], env={**os.environ, "EDGEDISTILL_DATA": str(tmp_path)},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        yield f"127.0.0.1:{port}"
        server.send_signal(signal.SIGINT)
        try:
            assert server.wait(30) == 0
        finally:
            server.kill()


def page(address: str) -> str:
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://{address}/", timeout=30) as answer:
                return str(answer.read().decode())
        except OSError:
            assert time.monotonic() < until, "the server never answered"
            time.sleep(0.1)


def test_the_page_answers_and_its_websocket_carries_the_first_frame(address: str) -> None:
    assert f"ws://{address}/ws" in page(address)

    async def first_frame() -> bytes:
        seen = b""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://{address}/ws?width=80&height=24") as stream,
        ):
            while b"Sessions" not in seen:
                message = await stream.receive(timeout=60)
                assert message.type in (aiohttp.WSMsgType.BINARY, aiohttp.WSMsgType.TEXT), f"closed after {seen!r}"
                seen += message.data if isinstance(message.data, bytes) else message.data.encode()
        return seen

    assert b"Chat" in asyncio.run(first_frame())
