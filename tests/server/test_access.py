"""Who may ask: keys, names, pages of other servers; and what becomes of requests whose client goes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from api_server import Served, serving
from waiting import wait_until

from edgedistill.runtime.model import Model
from edgedistill.server.listen import open_socket

MESSAGES = [{"role": "user", "content": "What is 17 + 25?"}]
LONG: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 220, "ignore_eos": True}


@pytest.fixture(scope="module")
def locked(model: Model) -> Iterator[Served]:
    """With a key, another name and a page that may ask."""
    with serving(model, api_key="sesame", names=("box.example",), cors_origins=("https://chat.example",)) as running:
        yield running


def test_a_key_is_asked_for(locked: Served) -> None:
    for header in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic sesame"},
        {"Authorization": "sesame"},
    ):
        response = httpx.get(f"{locked.url}/models", headers=header)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"
        assert response.headers["www-authenticate"] == "Bearer"
    assert httpx.get(f"{locked.url}/models", headers={"Authorization": "Bearer sesame"}).status_code == 200
    assert httpx.get(f"{locked.root}/metrics").status_code == 401
    assert httpx.get(f"{locked.root}/health").status_code == 200


@pytest.mark.parametrize(
    ("host", "status"), [("box.example", 200), ("BOX.example:80", 200), ("evil.example", 403), ("[", 403)]
)
def test_it_answers_to_its_own_names_alone(locked: Served, host: str, status: int) -> None:
    headers = {"Host": host, "Authorization": "Bearer sesame"}
    assert httpx.get(f"{locked.url}/models", headers=headers).status_code == status


def test_pages_of_other_servers_are_refused_unless_they_were_named(locked: Served, served: Served) -> None:
    key = {"Authorization": "Bearer sesame"}
    friend = httpx.get(f"{locked.url}/models", headers={"Origin": "https://chat.example", **key})
    assert (friend.status_code, friend.headers["access-control-allow-origin"]) == (200, "https://chat.example")
    stranger = httpx.get(f"{locked.url}/models", headers={"Origin": "https://evil.example", **key})
    assert stranger.status_code == 403
    assert "access-control-allow-origin" not in stranger.headers
    asked = {"Origin": "https://chat.example", "Access-Control-Request-Method": "POST"}
    assert httpx.options(f"{locked.url}/chat/completions", headers=asked).status_code == 200
    # Without the option no page but its own may ask, by simple requests neither.
    simple = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    response = httpx.post(f"{served.url}/chat/completions", headers=simple, json=LONG)
    assert response.status_code == 403
    assert "access-control-allow-origin" not in response.headers
    own = {"Origin": served.root}
    assert httpx.get(f"{served.url}/models", headers=own).status_code == 200


def test_a_client_that_goes_ends_its_request(served: Served) -> None:
    batch = served.service.batch
    made = batch.load.new_tokens
    with served.held():
        with httpx.stream("POST", f"{served.url}/chat/completions", json={**LONG, "stream": True}) as response:
            next(response.iter_lines())
        request = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
        body = httpx.Request("POST", "http://localhost", json={**LONG, "n": 3}).content
        with socket.create_connection(("127.0.0.1", int(served.root.rpartition(":")[2]))) as connection:
            connection.sendall(request % (len(body), body))
            wait_until(lambda: batch.running + batch.waiting > 0)
        wait_until(lambda: served.service.active == 0)  # of the requests, which are told at once
    wait_until(lambda: batch.running == 0)
    assert batch.load.new_tokens - made < 20


def test_a_server_that_ends_gives_running_requests_their_time(model: Model) -> None:
    body = {**LONG, "max_tokens": 30, "stream": True}
    with serving(model, grace_s=60.0) as ending, ExitStack() as holding:
        holding.enter_context(ending.held())
        with httpx.stream("POST", f"{ending.url}/chat/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            ending.stop()
            wait_until(lambda: not is_listening(ending))
            holding.close()
            assert list(lines)[-2:] == ["data: [DONE]", ""]


def test_a_server_that_ends_does_not_wait_for_ever(model: Model) -> None:
    """A second of grace, and the request would take far longer: it is cut off."""
    body = {**LONG, "stream": True}
    with serving(model, grace_s=1.0) as ending:
        with ending.held(), httpx.stream("POST", f"{ending.url}/chat/completions", json=body, timeout=60) as response:
            next(response.iter_lines())
            ending.stop()
            wait_until(lambda: not ending.alive())
        wait_until(lambda: ending.service.batch.running == 0)


def is_listening(served: Served) -> bool:
    try:
        socket.create_connection(("127.0.0.1", int(served.root.rpartition(":")[2]))).close()
    except OSError:
        return False
    return True


def test_a_connection_sends_what_it_has_at_once() -> None:
    """Otherwise every part of an answer waits 40 ms for the client to confirm the one before."""
    with open_socket("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
