"""Hub ids: a real download by huggingface_hub from a small hub on this machine, its cache, and every refusal."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from checkpoint_fixtures import qwen3_tensors, write_directory, write_shards

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "89abcdef0123456789abcdef0123456789abcdef"


class Hub(ThreadingHTTPServer):
    """The part of the hub's API that a download uses, over the files of a directory."""

    def __init__(self, files: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        self.server.tokens.add(self.headers.get("Authorization"))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and "tree" in parts:  # huggingface_hub from 1.0
            self.answer(200, json.dumps(self.tree()).encode(), Content_Type="application/json")
        elif parts[:2] == ["api", "models"]:
            self.repository("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        elif len(parts) > 4 and parts[2] == "resolve":
            content = (self.server.files / parts[4]).read_bytes()
            self.answer(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=COMMIT)
        else:
            self.answer(404, b"{}")

    do_HEAD = do_GET

    def tree(self) -> list[dict[str, object]]:
        found = sorted(self.server.files.iterdir())
        return [{"type": "file", "path": path.name, "size": path.stat().st_size, "oid": path.name} for path in found]

    def repository(self, name: str, revision: str) -> None:
        if name == "org/gated":
            self.answer(403, b"{}", X_Error_Code="GatedRepo")
        elif name == "org/broken":
            self.answer(500, b"{}")
        elif name != "org/tiny":
            self.answer(404, b"{}", X_Error_Code="RepoNotFound")
        elif revision not in ("main", "v1", COMMIT):
            self.answer(404, b"{}", X_Error_Code="RevisionNotFound")
        else:
            siblings = [{"rfilename": path.name} for path in self.server.files.iterdir()]
            body = {"_id": "1", "id": name, "modelId": name, "sha": COMMIT, "siblings": siblings}
            self.answer(200, json.dumps(body).encode(), Content_Type="application/json")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    files = write_directory(tmp_path_factory.mktemp("hub"))
    (files / "model.safetensors").unlink()
    write_shards(files, qwen3_tensors())
    (files / "pytorch_model.bin").write_bytes(b"not wanted")
    (files / "consolidated.safetensors").write_bytes(b"not wanted")
    (files / "onnx.onnx").write_bytes(b"not wanted")
    server = Hub(files)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


SCRIPT = """
import json, sys
from edgedistill.errors import EdgedistillError
from edgedistill.checkpoint.open import open_checkpoint

class Count:
    done = 0
    def begin(self, stage, total, unit): self.total = total
    def advance(self, amount): self.done += amount
    def end(self): pass

results = []
for model, options in json.loads(sys.argv[1]):
    progress = Count()
    try:
        with open_checkpoint(model, progress=progress, **options) as checkpoint:
            source = checkpoint.source
            rows = checkpoint.tensors.read_rows("model.norm.weight", 0, 32)
            results.append([source.kind, source.name, source.revision, source.license, float(rows.sum()),
                            progress.done, sorted(path.name for path in checkpoint.weight_files)])
    except EdgedistillError as error:
        results.append([type(error).__name__, str(error)])
print(json.dumps(results))
"""


def run(home: Path, endpoint: str, *calls: tuple[str, dict[str, Any]], **variables: str) -> list[list[Any]]:
    """Open models in a fresh process, as the endpoint and the cache are read when huggingface_hub is imported."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_") and "proxy" not in name.lower()
    }
    env = kept | {"HF_HOME": str(home), "HF_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1"} | variables
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(calls)], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # no progress bar of huggingface_hub's own
    return json.loads(done.stdout)


def test_download_cache_and_offline(hub: Hub, tmp_path: Path) -> None:
    hub.requests.clear()
    first, again, pinned = run(
        tmp_path,
        hub.address,
        ("org/tiny", {}),
        ("org/tiny@v1", {}),
        ("org/tiny", {"revision": COMMIT}),
        HF_TOKEN="hf_secret",
    )
    total = float(qwen3_tensors()["model.norm.weight"].sum())
    assert first[:4] == ["hub", "org/tiny", COMMIT, "apache-2.0"]
    assert first[4] == pytest.approx(total)
    assert first[6] == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert again[:4] == pinned[:4] == first[:4]
    assert "Bearer hf_secret" in hub.tokens
    fetched = {line.rsplit("/", 1)[1] for line in hub.requests if line.startswith("GET") and "/resolve/" in line}
    assert {"config.json", "tokenizer.json", "model-00001-of-00002.safetensors"} <= fetched
    assert not fetched & {"pytorch_model.bin", "consolidated.safetensors", "onnx.onnx"}
    assert first[5] == len(fetched)
    assert sum("model-00001" in line and line.startswith("GET") for line in hub.requests) == 1

    # From now on nothing listens at the endpoint: the cache has to do.
    nowhere = "http://127.0.0.1:9"
    calls: tuple[tuple[str, dict[str, bool]], ...] = (
        ("org/tiny", {"offline": True}),
        ("org/tiny@v1", {}),
        ("org/other", {"offline": True}),
        ("org/other", {}),
    )
    cached, unreachable, missing, gone = run(tmp_path, nowhere, *calls)
    assert cached[:5] == unreachable[:5] == first[:5]
    assert missing[0] == "ModelNotFoundError"
    assert "org/other is not in the hub cache, and offline mode forbids" in missing[1]
    assert gone[0] == "ModelNotFoundError"
    assert f"and {nowhere} cannot be reached" in gone[1]

    hub.requests.clear()
    by_variable, refused = run(tmp_path, hub.address, ("org/tiny", {}), ("org/other", {}), HF_HUB_OFFLINE="1")
    assert by_variable[:5] == first[:5]
    assert "offline mode forbids" in refused[1]
    assert hub.requests == []


def test_refusals(hub: Hub, tmp_path: Path) -> None:
    calls: list[tuple[str, dict[str, bool]]] = [
        (name, {}) for name in ("org/gated", "org/nothing", "org/tiny@v9", "org/broken", "org/..tiny")
    ]
    gated, absent, revision, broken, invalid = run(tmp_path, hub.address, *calls)
    assert {result[0] for result in (gated, absent, revision, broken, invalid)} == {"ModelNotFoundError"}
    assert "org/gated is gated" in gated[1]
    assert "HF_TOKEN" in gated[1]
    assert "The hub has no model org/nothing, or it is private" in absent[1]
    assert "org/tiny has no revision v9" in revision[1]
    assert "org/broken" in broken[1]
    assert "org/..tiny" in invalid[1]
    assert all("\n" not in result[1] for result in (gated, absent, revision, broken, invalid))
