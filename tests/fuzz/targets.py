"""What is fuzzed: by name, a function of a document's bytes that may raise nothing but the hierarchy of errors.

A parser's result is also shown or used as its commands do, since a value of a wrong type ends there otherwise.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import sqlite3
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def manifest(data: bytes, folder: Path) -> None:
    from edgedistill.bundle.bundle import Bundle
    from edgedistill.bundle.manifest import Manifest
    from edgedistill.bundle.opening_memory import opening_bytes
    from edgedistill.cli import inspect
    from edgedistill.export.model_card import model_card
    from edgedistill.runtime.session import SessionConfig
    from edgedistill.verify.models.bundle import bundle_identity
    from edgedistill_tui.data.bundles import describe
    from edgedistill_tui.runtime_engine import facts

    bundle = Bundle(folder, Manifest.from_json(data))
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        inspect._print_model(bundle)
        inspect._print_groups(inspect.group_weights(bundle.manifest.weights))
        inspect._print_weights(bundle.manifest.weights)
        inspect._print_files(bundle, verified=False)
    shown.getvalue().encode()
    describe(bundle), facts(bundle), bundle_identity(bundle), opening_bytes(bundle.manifest)
    SessionConfig.from_profile(bundle.manifest.profile)
    bundle.manifest.to_json()
    if "name" in bundle.manifest.source:
        model_card(bundle.manifest, genai_reads=True)


def bit_planes(data: bytes, folder: Path) -> None:
    from edgedistill.bundle.bit_planes import from_json

    from_json(data)


def baseline(data: bytes, folder: Path) -> None:
    """``data`` is the header; the file around it is sound."""
    import numpy as np

    from edgedistill.verify.references.baseline_file import _MAGIC, Baseline

    stream = io.BytesIO()
    tops = _rows_of(data)
    np.savez_compressed(
        stream,
        header=np.frombuffer(data, np.uint8),
        ids=np.zeros((tops, 2), np.uint32),
        logprobs=np.zeros((tops, 2), np.float32),
        tail=np.zeros(tops, np.float32),
    )
    body = stream.getvalue()
    _ = _baseline(body, folder, _MAGIC, Baseline).samples


def baseline_archive(data: bytes, folder: Path) -> None:
    """``data`` is the archive; its digest is the right one."""
    from edgedistill.verify.references.baseline_file import _MAGIC, Baseline

    _baseline(data, folder, _MAGIC, Baseline)


def _baseline(body: bytes, folder: Path, magic: bytes, kind: Any) -> Any:
    path = folder / "one.baseline"
    path.write_bytes(magic + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    found = kind.load(path)
    found.summary()
    return found


def _rows_of(header: bytes) -> int:
    try:
        return max(0, min(1000, sum(int(entry[2]) for entry in json.loads(header)["tops"])))
    except Exception:
        return 3


def samples(data: bytes, folder: Path) -> None:
    """``data`` are the lines of a store; each gets its right checksum."""
    from edgedistill.verify.sampling.store import SampleStore

    path = folder / "one.samples"
    lines = [line for line in data.split(b"\n") if line]
    path.write_bytes(b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in lines))
    try:
        header = json.loads(lines[0])
        json.dumps(header, allow_nan=False)
    except (ValueError, IndexError, RecursionError):
        header = {}
    if isinstance(header, dict):
        SampleStore.open(path, header).close()
    else:
        SampleStore.open(path, {"format": 1}).close()


def store_bytes(data: bytes, folder: Path) -> None:
    from edgedistill.verify.sampling.store import SampleStore

    path = folder / "two.samples"
    path.write_bytes(data)
    SampleStore.open(path, {"format": 1}).close()


def report(data: bytes, folder: Path) -> None:
    from edgedistill.verify.report.model import read_report, report_json

    path = folder / "report.json"
    path.write_bytes(data)
    report_json(read_report(path))


def suite(data: bytes, folder: Path) -> None:
    """As every kind of file; refused where none of them takes it."""
    from edgedistill.errors import EdgedistillError
    from edgedistill.verify.sampling.suite_check import check_suite, sentences
    from edgedistill.verify.suites.options import SuiteOptions
    from edgedistill.verify.suites.registry import open_suite

    refused: list[EdgedistillError] = []
    mapped = SuiteOptions(columns={"prompt": ("question",), "gold": ("answer",)}, allow_code=True)
    for name, options in (
        ("suite.jsonl", SuiteOptions(allow_code=True)),
        ("suite.json", SuiteOptions(allow_code=True, few_shot=1, tolerance=0.5)),
        ("suite.csv", SuiteOptions(template="{prompt} {choices}", allow_code=True)),
        ("suite.jsonl.gz", SuiteOptions()),
        ("mapped.jsonl", mapped),
    ):
        path = folder / name
        path.write_bytes(data)
        try:
            sentences(check_suite(open_suite(path, options)))
        except EdgedistillError as error:
            refused.append(error)
    if len(refused) == 5:
        raise refused[0]


def profile(data: bytes, folder: Path) -> None:
    from edgedistill.profile.profile import load_profile

    path = folder / "one.toml"
    path.write_bytes(data)
    load_profile(path).to_dict()


def settings(data: bytes, folder: Path) -> None:
    from edgedistill_tui.data.config import Config

    path = folder / "tui.toml"
    path.write_bytes(data)
    Config.load(path)


def config(data: bytes, folder: Path) -> None:
    from edgedistill.architecture.families import build_spec
    from edgedistill.checkpoint.normalize import text_config
    from edgedistill.checkpoint.quantized import _scheme
    from edgedistill.checkpoint.tokenizer.files import read_json

    path = folder / "config.json"
    path.write_bytes(data)
    values = read_json(path)
    build_spec(text_config(values))
    if isinstance(values.get("quantization_config"), dict):
        _scheme(values["quantization_config"])


def tokenizer(data: bytes, folder: Path) -> None:
    """``data``: an object of file names and contents of a checkpoint's directory."""
    from edgedistill.checkpoint.hf_directory import read_tokenizer
    from edgedistill.checkpoint.tokenizer.files import read_json

    try:
        files = json.loads(data)
    except (ValueError, RecursionError):
        files = None
    if not isinstance(files, dict):
        (folder / "tokenizer.json").write_bytes(data)
        files = {}
    for name in TOKENIZER_FILES:
        if name in files:
            content = files[name]
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    read_tokenizer(folder, read_json(folder / "config.json"), read_json(folder / "generation_config.json"))


TOKENIZER_FILES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "vocab.json", "merges.txt", "chat_template.json", "chat_template.jinja",
)  # fmt: skip


def generation(data: bytes, folder: Path) -> None:
    from edgedistill.bundle.manifest import FORM
    from edgedistill.runtime.batch.request import DrawSettings
    from edgedistill.runtime.settings import GenerationSettings

    values = FORM.parse_object(data, "generation.json")
    GenerationSettings.from_defaults(values)
    DrawSettings.resolve({}, values)


def rescue(data: bytes, folder: Path) -> None:
    """A rescue file, then what the UI does with its session."""
    from edgedistill_tui.data.store import Store

    (folder / "rescued-1.json").write_bytes(data)
    store = Store(folder / "sessions.db")
    try:
        store.take_in_rescued()
        _use_sessions(store)
    finally:
        store.close()


def session_rows(data: bytes, folder: Path) -> None:
    """``data``: {"session": [row], "message": [rows]} put into a database of this version as they are."""
    from edgedistill_tui.data.store import _MESSAGE, _SESSION, Store

    store = Store(folder / "sessions.db")
    try:
        rows = json.loads(data)
        store.sessions()
        connection = sqlite3.connect(folder / "sessions.db")
        for table, columns in (("session", _SESSION), ("message", _MESSAGE)):
            for row in rows[table]:
                values = [json.dumps(row[c]) if isinstance(row.get(c), dict | list) else row.get(c) for c in columns]
                marks = ", ".join("?" * len(columns))
                with contextlib.suppress(sqlite3.Error, OverflowError, UnicodeError):
                    connection.execute(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})", values)
        connection.commit()
        connection.close()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    else:
        _use_sessions(store)
    finally:
        store.close()


def database(data: bytes, folder: Path) -> None:
    from edgedistill_tui.data.store import Store

    (folder / "sessions.db").write_bytes(data)
    store = Store(folder / "sessions.db")
    try:
        _use_sessions(store)
        store.runs("m")
    finally:
        store.close()


def _use_sessions(store: Any) -> None:
    from edgedistill.errors import EdgedistillError
    from edgedistill_tui.data.writing import to_json, to_markdown
    from edgedistill_tui.engine import Sampling

    store.sessions("a")
    for summary in store.sessions():
        session = store.load(summary.id)
        with contextlib.suppress(EdgedistillError):
            Sampling().merged(session.settings)
        for message in session.path():
            session.newest_leaf(message)
            session.siblings(message)
        to_markdown(session), to_json(session), session.template_messages()


def safetensors(data: bytes, folder: Path) -> None:
    """``data`` is the header; the length before it is the right one."""
    from edgedistill.checkpoint.safetensors import open_safetensors

    (folder / "model.safetensors").write_bytes(len(data).to_bytes(8, "little") + data + bytes(256))
    open_safetensors(folder).close()


def gguf(data: bytes, folder: Path) -> None:
    from edgedistill.checkpoint.gguf.header import open_gguf

    (folder / "one.gguf").write_bytes(data)
    open_gguf(folder / "one.gguf")[1].close()


def traces(data: bytes, folder: Path) -> None:
    from edgedistill.traces.traces import Traces, is_traces_file

    path = folder / "traces.jsonl"
    path.write_bytes(data)
    is_traces_file(path)
    Traces.load(path, tokenizer_sha256="0" * 64, vocab_size=768)


TARGETS: dict[str, Callable[[bytes, Path], None]] = {
    "manifest": manifest, "bit-planes": bit_planes, "baseline": baseline, "baseline-archive": baseline_archive,
    "samples": samples, "store": store_bytes, "report": report, "suite": suite, "profile": profile,
    "settings": settings, "config": config, "tokenizer": tokenizer, "generation": generation, "rescue": rescue,
    "session-rows": session_rows,
    "database": database, "safetensors": safetensors, "gguf": gguf, "traces": traces,
}  # fmt: skip
"""Each takes the document and an empty folder."""
