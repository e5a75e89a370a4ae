"""Every kept document that once broke a parser, through every command that reads such a file, and the UI's start."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bundle_files import relist
from cli_support import here
from fake_engine import drive, make_app

from edgedistill.bundle.bundle import MANIFEST, WIDENED
from edgedistill.verify.references.baseline_file import _MAGIC
from edgedistill_tui.data.config import Config, ConfigError
from edgedistill_tui.data.store import Store
from edgedistill_tui.runtime_engine import RuntimeEngine

if TYPE_CHECKING:
    from textual.pilot import Pilot

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"
SMALL = ("--samples", "2", "--prompts", "2", "-n", "4")


def documents(*kinds: str, sound: bool = True, quick: bool = True) -> list[Any]:
    """Those of ``kinds`` as parameters (kind, content); ``sound``: also those that commands accept.

    Without ``quick`` all but the first of each kind are marked as slow: they go through many commands.
    """
    parameters = []
    for kind in kinds:
        found = [path for path in sorted((CORPUS / kind).iterdir()) if sound or path.stem != "plain"]
        for index, path in enumerate(found):
            marks = [pytest.mark.slow] if index and not quick else []
            parameters.append(pytest.param(kind, path.read_bytes(), id=f"{kind}-{path.stem}", marks=marks))
    return parameters


def refused_or_done(*command: object) -> None:
    """The command does its work, or says in one line why not."""
    result = here(*command)
    assert "Traceback" not in result.err
    if result.code not in (0, 1, 3):
        result.one_error()


@pytest.fixture
def bundle(tiny_bundle_dir: Path, tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return shutil.copytree(tiny_bundle_dir, tmp_path / "work" / "bundle")


def put_into_bundle(kind: str, content: bytes, bundle: Path) -> None:
    if kind == "manifest":
        (bundle / MANIFEST).write_bytes(content)
        return
    name = {"bit-planes": WIDENED, "generation": "generation.json"}[kind]
    (bundle / name).write_bytes(content)
    relist(bundle, name)


@pytest.mark.parametrize(
    ("kind", "content"), documents("manifest", "bit-planes", "generation", sound=False, quick=False)
)
def test_bundles(kind: str, content: bytes, bundle: Path, tiny_bundle_dir: Path, tmp_path: Path) -> None:
    put_into_bundle(kind, content, bundle)
    for command in (
        ("inspect", bundle, "--weights"), ("inspect", bundle, "--json", "--verify"),
        ("run", bundle, "hello", "-n", "2"),
        ("chat", "--plain", bundle), ("bench", bundle, "--rounds", "1", "-n", "2"),
        ("audit", bundle, *SMALL), ("verify", bundle, "--reference", tiny_bundle_dir, *SMALL),
        ("baseline", "create", bundle, "-o", tmp_path / "b.baseline", "--force", *SMALL),
        *([("tune", bundle, "-o", tmp_path / "tuned", "--steps", "1")] if kind == "manifest" else []),
        ("sign", bundle, "--key", tmp_path / "no.key"),
    ):  # fmt: skip
        refused_or_done(*command)


@pytest.mark.parametrize(("kind", "content"), documents("manifest", "bit-planes", "generation"))
def test_bundles_in_the_terminal_ui(kind: str, content: bytes, bundle: Path, tmp_path: Path) -> None:
    put_into_bundle(kind, content, bundle)

    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press("f4")
        await pilot.pause()
        await pilot.press("f2")
        await pilot.pause()

    app = make_app(tmp_path, RuntimeEngine.open, bundle=bundle)  # type: ignore[arg-type]
    drive(app, steps, ready=False)
    app.close_engine()
    assert not app.return_code


@pytest.mark.parametrize(("kind", "content"), documents("config", "tokenizer", "gguf", "safetensors", quick=False))
def test_checkpoints(kind: str, content: bytes, tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    checkpoint: Path = shutil.copytree(tiny_checkpoint_dir, tmp_path / "checkpoint")
    if kind == "config":
        (checkpoint / "config.json").write_bytes(content)
    elif kind == "tokenizer":
        (checkpoint / "tokenizer.json").write_bytes(content)
    elif kind == "gguf":
        checkpoint = tmp_path / "one.gguf"
        checkpoint.write_bytes(content)
    else:
        (checkpoint / "model.safetensors").write_bytes(len(content).to_bytes(8, "little") + content + bytes(256))
    for command in (("plan", checkpoint), ("export", checkpoint, "-o", tmp_path / "out", "--no-verify", "--force"),
                    ("compare", checkpoint, "--rounds", "0", "--max-tokens", "64")):  # fmt: skip
        refused_or_done(*command)
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(("kind", "content"), documents("profile", quick=False))
def test_profiles(kind: str, content: bytes, tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "one.toml"
    for text in (content, content[:-40], content + b"\xff\xfe", b"\0" * 100):
        path.write_bytes(text)
        refused_or_done("profiles", "validate", path)
        refused_or_done("profiles", "show", path)
    refused_or_done("export", tiny_checkpoint_dir, "-o", tmp_path / "out", "--profile", path)


@pytest.mark.parametrize(
    ("kind", "content"), documents("baseline-archive", "report", "suite", "samples", "traces", quick=False)
)
def test_documents_of_verification(
    kind: str, content: bytes, tiny_bundle_dir: Path, tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    path = tmp_path / "one.jsonl"
    commands: tuple[tuple[object, ...], ...]
    if kind == "baseline-archive":
        content = _MAGIC + hashlib.sha256(content).hexdigest().encode() + b"\n" + content
        commands = (("baseline", "show", path), ("baseline", "check", path),
                    ("verify", tiny_bundle_dir, "--baseline", path, *SMALL))  # fmt: skip
    elif kind == "report":
        commands = (("report", path), ("report", path, path, "--html", tmp_path / "r.html"))
    elif kind == "suite":
        commands = (("audit", tiny_bundle_dir, "--suite", path, *SMALL),)
    elif kind == "samples":
        commands = (("audit", tiny_bundle_dir, "--store", path, *SMALL),)
    else:
        commands = (("export", tiny_checkpoint_dir, "-o", tmp_path / "out", "--no-verify", "--calibrate", path),)
    half, infinite = content[: len(content) // 2], content.replace(b"1", b"1e999")
    for text in {"baseline-archive": (content,), "report": (half, infinite, content + b"\xff")}.get(kind, (half,)):
        path.write_bytes(text)
        for command in commands:
            refused_or_done(*command)


@pytest.mark.parametrize(("kind", "content"), documents("rescue", "database", "settings"))
def test_the_terminal_ui_starts(kind: str, content: bytes, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    name = {"rescue": "rescued-1.json", "database": "sessions.db", "settings": "tui.toml"}[kind]
    (data / name).write_bytes(content)
    if kind == "settings":
        for text in (content, content + b"\xff", b"theme = 3", b"[keys]\na = []", b"frames_per_s = 1e999"):
            (data / name).write_bytes(text)
            with contextlib.suppress(ConfigError):
                Config.load(data / name)

    async def steps(pilot: Pilot[None]) -> None:
        await pilot.press("f3")
        await pilot.pause()

    app = make_app(tmp_path, lambda path: None, bundle=None)  # type: ignore[arg-type, return-value]
    drive(app, steps, ready=False)
    assert not app.return_code
    Store(data / "sessions.db").sessions()
