"""Packed weights kept in the user's cache: the same answers, made of checked files, bounded, never trusted blindly."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from bundle_files import copy_bundle
from runtime_support import open_tiny

from edgedistill.bundle import own_directory
from edgedistill.bundle.bit_planes import from_json
from edgedistill.bundle.bundle import WIDENED, Bundle
from edgedistill.cli import main
from edgedistill.errors import BudgetError, BundleError, UsageError
from edgedistill.runtime import loading, packed_cache, session
from edgedistill.runtime.packed_cache import GRAPH, RECORD, WEIGHTS, PackedCache, entry_key
from edgedistill.runtime.session import DecoderSession

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy.typing as npt


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(packed_cache.VARIABLE, "1GB")
    return tmp_path / "cache" / "packed"


def entries(kept: Path) -> list[Path]:
    return sorted(path for path in kept.iterdir() if path.is_dir()) if kept.is_dir() else []


def logits(session: DecoderSession) -> npt.NDArray[np.float32]:
    decoder = session.decoder()
    return np.stack([decoder.feed([5, 6, 7, 8, 9]).copy(), decoder.feed([10]).copy()])


@pytest.fixture
def opened_from(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folders that sessions take their weights from."""
    seen: list[str] = []
    add = ort.SessionOptions.add_session_config_entry

    def watch(options: ort.SessionOptions, name: str, value: str) -> None:
        if name.endswith("file_folder_path"):
            seen.append(value)
        add(options, name, value)

    monkeypatch.setattr(ort.SessionOptions, "add_session_config_entry", watch)
    return seen


@pytest.mark.parametrize("fmt", ["int4-b32", "int8-b64", "fp32"])
def test_a_second_opening_maps_what_the_first_saved_and_answers_alike(
    fmt: str, tiny_bundle: Callable[[str], Path], kept: Path, monkeypatch: pytest.MonkeyPatch, opened_from: list[str]
) -> None:
    path = tiny_bundle(fmt)
    first = logits(open_tiny(path))
    (entry,) = entries(kept)
    assert (entry / WEIGHTS).stat().st_size > 0
    opened_from.clear()
    np.testing.assert_array_equal(logits(open_tiny(path)), first)
    assert opened_from == [str(entry)]
    monkeypatch.delenv(packed_cache.VARIABLE)
    opened_from.clear()
    np.testing.assert_array_equal(logits(open_tiny(path)), first)
    assert str(entry) not in opened_from


def test_without_the_variable_nothing_is_kept(
    tiny_bundle: Callable[[str], Path], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("", "0"):
        monkeypatch.setenv(packed_cache.VARIABLE, value)
        open_tiny(tiny_bundle("int4-b32"))
    monkeypatch.setenv(packed_cache.VARIABLE, "1kB")  # no room for one
    open_tiny(tiny_bundle("int4-b32"))
    assert entries(kept) == []
    monkeypatch.setenv(packed_cache.VARIABLE, "much")
    with pytest.raises(UsageError, match="is 'much', which is not a size"):
        open_tiny(tiny_bundle("int4-b32"))


@pytest.mark.parametrize("harm", ["no room", "a full disk"])
def test_where_no_entry_can_be_made_scales_are_given_back_as_without(
    tiny_bundle: Callable[[str], Path], kept: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    path = tiny_bundle("int4-b32")
    supplied: list[set[str]] = []
    open_session = session.open_session

    def watch(*args: Any, **options: Any) -> Any:
        if options.get("save") is not None:
            raise BundleError("ONNX Runtime cannot load model.onnx: no space left.")
        supplied.append(set(options["supplied"]))
        return open_session(*args, **options)

    monkeypatch.setattr(session, "open_session", watch)
    if harm == "no room":
        monkeypatch.setenv(packed_cache.VARIABLE, "1kB")
    open_tiny(path)
    (graph,) = from_json((path / WIDENED).read_text())
    assert supplied == [{one.initializer for one in graph.scales}]
    assert entries(kept) == []


def test_matrices_in_planes_are_opened_as_without(tiny_bundle: Callable[[str], Path], kept: Path) -> None:
    logits(open_tiny(tiny_bundle("int5-b32")))
    assert entries(kept) == []


@pytest.mark.parametrize("harm", ["rewritten", "shorter", "graph", "record", "unmarked"])
def test_an_entry_that_is_not_what_was_written_is_made_anew(
    harm: str, tiny_bundle: Callable[[str], Path], kept: Path, opened_from: list[str]
) -> None:
    path = tiny_bundle("int4-b32")
    first = logits(open_tiny(path))
    (entry,) = entries(kept)
    weights = entry / WEIGHTS
    if harm == "rewritten":
        before = weights.stat()
        weights.write_bytes(bytes(before.st_size))
        os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))  # the time of the inode tells it
    elif harm == "shorter":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif harm == "graph":
        (entry / GRAPH).write_bytes((entry / GRAPH).read_bytes() + b"\0")
    elif harm == "record":
        (entry / RECORD).write_text("[]")
    else:
        (entry / own_directory.MARKER).unlink()
    opened_from.clear()
    np.testing.assert_array_equal(logits(open_tiny(path)), first)
    assert opened_from != [str(entry)]
    if harm != "unmarked":  # another's directory stays as it is
        opened_from.clear()
        np.testing.assert_array_equal(logits(open_tiny(path)), first)
        assert opened_from == [str(entry)]


def test_an_entry_that_cannot_be_loaded_is_made_anew(tiny_bundle: Callable[[str], Path], kept: Path) -> None:
    path = tiny_bundle("int4-b32")
    first = logits(open_tiny(path))
    (entry,) = entries(kept)
    (entry / GRAPH).write_bytes(b"no graph")
    record = json.loads((entry / RECORD).read_text())
    record["graph"] = hashlib.sha256(b"no graph").hexdigest()
    (entry / RECORD).write_text(json.dumps(record))
    np.testing.assert_array_equal(logits(open_tiny(path)), first)
    assert (entry / GRAPH).read_bytes() != b"no graph"


def test_no_entry_is_made_of_altered_weights(tiny_bundle: Callable[[str], Path], kept: Path, tmp_path: Path) -> None:
    path = copy_bundle(tiny_bundle("int4-b32"), tmp_path / "copy")
    content = bytearray((path / "weights.bin").read_bytes())
    content[100] ^= 1
    (path / "weights.bin").write_bytes(content)
    with pytest.raises(BundleError, match="was altered"):
        DecoderSession(Bundle.open(path))
    assert entries(kept) == []


def test_saving_that_fails_is_no_reason_not_to_answer(
    tiny_bundle: Callable[[str], Path], kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_bundle("int4-b32")
    monkeypatch.setattr(packed_cache, "GRAPH", "no/such/directory/graph.onnx")
    assert np.isfinite(logits(open_tiny(path))).all()
    assert entries(kept) == []


def test_the_command_counts_and_deletes_them(
    tiny_bundle: Callable[[str], Path], kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def cache(action: str, *options: str) -> dict[str, object]:
        assert main(["cache", action, *options, "--json"]) == 0
        found: dict[str, object] = json.loads(capsys.readouterr().out)["packed"]
        return found

    assert cache("show") == {"directory": str(kept), "entries": 0, "bytes": 0}
    open_tiny(tiny_bundle("int4-b32"))
    (entry,) = entries(kept)
    (kept / "of-the-users").mkdir()
    expected = {
        "directory": str(kept), "entries": 1, "bytes": sum(file.stat().st_size for file in entry.iterdir()),
    }  # fmt: skip
    assert cache("show") == expected
    assert cache("clear", "--prompts")["entries"] == 0
    assert cache("show") == expected
    assert cache("clear", "--packed") == expected
    assert entries(kept) == [kept / "of-the-users"]
    assert cache("clear")["entries"] == 0
    assert main(["cache", "clear", "--packed"]) == 0
    assert capsys.readouterr().out == f"deleted 0 sets of packed weights (0 B) in {kept}\n"


def test_the_least_recently_used_go_first(tiny_bundle: Callable[[str], Path], kept: Path) -> None:
    made: dict[str, Path] = {}
    for fmt in ("int4-b32", "int8-b64", "int4-b128"):
        open_tiny(tiny_bundle(fmt))
        (made[fmt],) = set(entries(kept)) - set(made.values())
    os.utime(made["int4-b32"] / RECORD, ns=(3, 3))
    os.utime(made["int8-b64"] / RECORD, ns=(1, 1))
    os.utime(made["int4-b128"] / RECORD, ns=(2, 2))
    sizes = {fmt: sum(file.stat().st_size for file in path.iterdir()) for fmt, path in made.items()}
    stranger = kept / "of-the-users"
    stranger.mkdir()
    cache = PackedCache(kept, sum(sizes.values()) - 1)
    cache._shrink(spare="")
    assert set(entries(kept)) == {made["int4-b32"], made["int4-b128"], stranger}
    PackedCache(kept, 0)._shrink(spare=made["int4-b128"].name)
    assert set(entries(kept)) == {made["int4-b128"], stranger}


def test_a_key_is_of_bundle_graph_options_runtime_and_processor(
    tiny_bundle: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(tiny_bundle("int4-b32"))
    shutil.copytree(bundle.path, tmp_path / "moved")
    key = entry_key(bundle, "model.onnx", {"level": "all"})
    assert entry_key(Bundle.open(tmp_path / "moved"), "model.onnx", {"level": "all"}) == key
    others = {
        entry_key(Bundle.open(tiny_bundle("int8-b64")), "model.onnx", {"level": "all"}),
        entry_key(bundle, "model-prefill.onnx", {"level": "all"}),
        entry_key(bundle, "model.onnx", {"level": "basic"}),
    }
    monkeypatch.setattr(packed_cache, "_flags", lambda: "avx9")
    others.add(entry_key(bundle, "model.onnx", {"level": "all"}))
    monkeypatch.setattr(ort, "__version__", "99.0")
    others.add(entry_key(bundle, "model.onnx", {"level": "all"}))
    assert len(others - {key}) == 5


def test_weights_that_are_kept_need_not_fit_into_memory_once_more(
    kept: Path, tiny_bundle: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(tiny_bundle("int4-b32"))
    private = int(bundle.manifest.predicted["weights_private"])
    monkeypatch.setattr(loading, "available_memory", lambda: private - 1)
    with pytest.raises(BudgetError, match="Close other programs"):
        loading.require_memory(bundle)
    open_tiny(bundle.path)
    assert entries(kept)
    loading.require_memory(bundle)
    monkeypatch.setattr(loading, "available_memory", lambda: 1000)
    with pytest.raises(BudgetError, match="Close other programs"):
        loading.require_memory(bundle)
