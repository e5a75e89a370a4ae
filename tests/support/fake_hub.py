"""A small hub on this machine: repositories that huggingface_hub makes, commits to, lists and downloads from.

It speaks what the client speaks: create, preupload, LFS batches, commits as lines of JSON, resolve. A file
is in the repository once a commit names it; large ones were uploaded before, by their SHA-256.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WRITER = "Bearer hf_writer"


class FakeHub(ThreadingHTTPServer):
    """Repositories by id: their files by name; ``blobs`` by SHA-256; ``private`` repositories."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.blobs: dict[str, bytes] = {}
        self.messages: list[str] = []
        self.validated: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    hub = FakeHub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub

    def log_message(self, *args: object) -> None:
        pass

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, status: int, content: bytes | dict[str, Any] | list[Any], **headers: str) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        if not isinstance(content, bytes):
            self.send_header("Content-Type", "application/json")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    def do_POST(self) -> None:
        path, body = self.path.split("?")[0], self.body()
        if path == "/api/validate-yaml":
            self.server.validated.append(json.loads(body)["content"])
            self.answer(200, {"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != WRITER:
            self.answer(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self.create(json.loads(body))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/\w+", path):
            assert found[1] in self.server.repositories
            files = [
                {"path": f["path"], "uploadMode": "lfs" if f["size"] > 20_000 else "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self.answer(200, {"files": files})
        elif path.endswith("/info/lfs/objects/batch"):
            self.answer(200, self.batch(json.loads(body)))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/\w+", path):
            self.commit(found[1], body)
        else:
            self.answer(404, {"error": path})

    def create(self, wanted: dict[str, Any]) -> None:
        name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        if wanted["name"] == "forbidden":
            self.answer(403, {"error": "You have no right to make this repository."})
            return
        if name in self.server.repositories:
            self.answer(409, {"error": "exists", "url": f"{self.server.address}/{name}"})
            return
        self.server.repositories[name] = {}
        if wanted.get("private"):
            self.server.private.add(name)
        self.answer(200, {"url": f"{self.server.address}/{name}", "name": name})

    def batch(self, wanted: dict[str, Any]) -> dict[str, Any]:
        objects = []
        for one in wanted["objects"]:
            upload = {"href": f"{self.server.address}/blob/{one['oid']}"}
            objects.append(one | ({} if one["oid"] in self.server.blobs else {"actions": {"upload": upload}}))
        return {"transfer": "basic", "objects": objects}

    def commit(self, name: str, body: bytes) -> None:
        files = self.server.repositories[name]
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                self.server.messages.append(value["summary"])
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.server.blobs[value["oid"]]
        url = f"{self.server.address}/{name}/commit/{COMMIT}"
        self.answer(200, {"success": True, "commitUrl": url, "commitOid": COMMIT, "hookOutput": ""})

    def do_PUT(self) -> None:
        body = self.body()
        digest = self.path.rpartition("/")[2]
        if hashlib.sha256(body).hexdigest() != digest:
            self.answer(400, b"")
            return
        self.server.blobs[digest] = body
        self.answer(200, b"")

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/api/whoami-v2":
            self.answer(200, {"name": "me", "type": "user", "orgs": []})
            return
        found = re.fullmatch(r"/api/models/([^/]+/[^/]+)(/(?:revision|tree)/.*)?", path)
        resolved = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name = (found or resolved or [None, None])[1]
        if name not in self.server.repositories:
            self.answer(404, b"{}", X_Error_Code="RepoNotFound")
            return
        files = self.server.repositories[name]
        if resolved:
            if resolved[3] not in files:
                self.answer(404, b"{}", X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
                return
            content = files[resolved[3]]
            self.answer(200, content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit=COMMIT)
        elif found and (found[2] or "").startswith("/tree"):
            self.answer(200, [{"type": "file", "path": n, "size": len(c), "oid": n} for n, c in files.items()])
        else:
            self.answer(200, {"id": name, "sha": COMMIT, "siblings": [{"rfilename": n} for n in files]})

    do_HEAD = do_GET
