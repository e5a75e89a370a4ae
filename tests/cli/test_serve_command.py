"""``edgedistill serve`` as a process: its address, an answer, its end; and what it refuses to start with."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from cli_support import COMMAND, environment, here

from edgedistill.cli.json_outputs import schema


@contextmanager
def serve(bundle: Path, *options: str, **variables: str) -> Iterator[tuple[dict[str, Any], subprocess.Popen[str]]]:
    """The command on a free port; what it printed, and its process."""
    command = [*COMMAND, "serve", str(bundle), "--port", "0", "--json", "--threads", "1", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(None, **variables)
    ) as process:
        try:
            assert process.stdout is not None
            text = ""
            while not text.endswith("}\n"):
                line = process.stdout.readline()
                assert line, process.stderr and process.stderr.read()
                text += line
            yield json.loads(text), process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_prints_its_address_answers_and_ends(reasoner: Callable[[str], Path], number: signal.Signals) -> None:
    with serve(reasoner("fp32"), "--name", "tiny", EDGEDISTILL_API_KEY="sesame") as (told, process):
        jsonschema.Draft202012Validator(schema("serve")).validate(told)
        assert (told["model"], told["key"], told["host"]) == ("tiny", True, "127.0.0.1")
        body = {"messages": [{"role": "user", "content": "What is 17 + 25?"}], "max_tokens": 4}
        headers = {"Authorization": "Bearer sesame"}
        answer = httpx.post(f"{told['url']}/chat/completions", json=body, headers=headers, timeout=60)
        assert answer.json()["usage"]["completion_tokens"] == 4
        assert httpx.get(f"{told['url']}/models").status_code == 401
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--host", "0.0.0.0"], "expected a key"),
        (["--port", "99999"], "--port is 99999"),
        (["--api-key", "two words"], "printable ASCII"),
        (["--api-key", ""], "printable ASCII"),
        (["--parallel", "0"], "--parallel is 0"),
        (["--queue", "0"], "--queue is 0"),
        (["--context", "3"], "--context is 3"),
        (["--max-body", "-1"], "--max-body is -1"),
        (["--grace", "nan"], "--grace is nan"),
        (["--host", "999.1.1.1", "--api-key", "k"], "Cannot listen on 999.1.1.1"),
    ],
)
def test_what_it_refuses_to_start_with(options: list[str], said: str, tmp_path: Path) -> None:
    assert said in here("serve", tmp_path / "none", *options).one_error()


def test_no_bundle_and_a_port_in_use(tmp_path: Path) -> None:
    assert "Expected a bundle directory" in here("serve", tmp_path / "none", "--port", "0").one_error()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port}" in here("serve", tmp_path / "none", "--port", port).one_error()


def test_without_its_packages_one_line_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("edgedistill.server", "uvicorn"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "'uvicorn" in here("serve", tmp_path).one_error()


def test_fewer_run_at_a_time_where_the_memory_does_not_hold_more(
    reasoner: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgedistill.runtime.model import open_bundle
    from edgedistill.server.options import ServeOptions
    from edgedistill.server.service import Service
    from edgedistill.trajectories import memory

    with open_bundle(reasoner("fp32"), threads=1) as model:
        manifest = model.bundle.manifest
        row = 256 * manifest.kv_cache.bytes_per_token + 16 * manifest.model.vocab_size
        monkeypatch.setattr(memory, "available_memory", lambda: int(4.5 * row / 0.9))
        service = Service(model, ServeOptions(name="tiny", parallel=16))
        service.close()
    assert service.batch.places == 3
    assert "3 instead of 16" in service.notes[0]
