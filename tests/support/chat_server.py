"""An OpenAI-compatible server on this machine, answered by a bundle: what verification asks over HTTP in tests."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from edgedistill.runtime.model import Model


@dataclass
class ChatServer:
    """``asked``: the bodies of all requests. ``fail``: status codes that the next requests get, with their texts."""

    address: str
    names: list[str]
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[str] = field(default_factory=list)
    fail: list[tuple[int, str]] = field(default_factory=list)
    splits_reasoning: bool = True


@contextmanager
def serve(model: Model, *, names: tuple[str, ...] = ("tiny-reasoner",)) -> Iterator[ChatServer]:
    """Answers ``/v1/models`` and ``/v1/chat/completions`` until the context ends."""
    lock = threading.Lock()
    state = ChatServer("", list(names))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else a kept connection waits 40 ms for every body

        def do_GET(self) -> None:
            self._send(200, {"data": [{"id": name} for name in state.names]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.headers.append(self.headers.get("Authorization", ""))
            with lock:
                if state.fail:
                    status, text = state.fail.pop(0)
                    self._send(status, {"error": {"message": text}})
                    return
                state.asked.append(body)
                told = model.generate(
                    body["messages"],
                    temperature=body["temperature"],
                    top_p=body["top_p"],
                    top_k=body.get("top_k"),
                    max_new_tokens=body["max_tokens"],
                    seed=body["seed"],
                )
            message = {"role": "assistant", "content": told.answer, "reasoning_content": told.reasoning}
            if not state.splits_reasoning:
                message = {"role": "assistant", "content": told.text}
            finish = "stop" if told.finish_reason == "stop" else "length"
            usage = {"completion_tokens": told.stats.new_tokens}
            self._send(200, {"choices": [{"message": message, "finish_reason": finish}], "usage": usage})

        def _send(self, status: int, value: Any) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Retry-After", "0")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.address = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
