"""Bundles whose codes lie in planes, opened by supplying matrices: the graph's own results, memory freed in time."""

from __future__ import annotations

import dataclasses
import gc
import json
import shutil
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from bundle_files import relist
from checkpoint_fixtures import qwen3_tensors, write_directory, write_safetensors
from exporting import export
from runtime_support import open_tiny
from widened_graphs import as_made_before, assert_equal, logits

from edgedistill.bundle.bundle import MODEL, PREFILL_MODEL, WIDENED, WIDENED_MODELS, Bundle
from edgedistill.bundle.opening_memory import folded_bytes, is_supplied, opening_bytes, supplied_bytes
from edgedistill.errors import BudgetError, BundleError
from edgedistill.runtime import loading
from edgedistill.runtime.model import open_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgedistill.runtime.session import DecoderSession

FORMATS = ["int3-b32-asym-search", "int3-b64-sym-rtn", "int5-b32-asym-s8", "int6-b64-sym-rtn-s32", "int6-b16-asym-rtn"]


@pytest.mark.parametrize("weight_format", FORMATS)
def test_logits_are_those_of_the_graph_by_itself(
    tiny_bundle: Callable[[str], Path], tmp_path: Path, weight_format: str
) -> None:
    path = tiny_bundle(weight_format)
    before = as_made_before(path, tmp_path / "before")
    assert is_supplied(Bundle.open(path, check="full").manifest)
    assert not is_supplied(Bundle.open(before, check="full").manifest)
    assert_equal(open_tiny(path), open_tiny(before))


def test_formats_as_the_kernels_take_them_have_no_other_graph(tiny_bundle: Callable[[str], Path]) -> None:
    bundle = Bundle.open(tiny_bundle("int4-b32-s32"))
    assert not bundle.has_file(WIDENED)
    assert opening_bytes(bundle.manifest) == 0
    assert not list(bundle.path.glob("*widened*"))


@pytest.mark.parametrize("weight_format", ["int3-b32", "int6-b32-sym"])
def test_an_untied_embedding_is_looked_up_only(tmp_path: Path, weight_format: str) -> None:
    untied = {"tie_word_embeddings": False}
    write_directory(tmp_path / "model", **untied)
    tensors = qwen3_tensors(untied)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"][::-1].copy()
    write_safetensors(tmp_path / "model" / "model.safetensors", tensors)
    bundle = export(tmp_path / "model", tmp_path / "untied", format=weight_format).path
    assert_equal(open_tiny(bundle), open_tiny(as_made_before(bundle, tmp_path / "before")))


def test_two_forms_share_what_both_look_up(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    export(tiny_checkpoint_dir, tmp_path / "both", format="int5-b32", prefill="w8a8")
    names = {entry.name for entry in Bundle.open(tmp_path / "both", check="full").manifest.files}
    assert names >= {PREFILL_MODEL, WIDENED, *WIDENED_MODELS.values()}
    assert_equal(open_tiny(tmp_path / "both"), open_tiny(as_made_before(tmp_path / "both", tmp_path / "before")))


def test_what_is_packed_is_freed_and_what_is_looked_up_stays(
    tiny_bundle: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[Any]] = []
    share = ort.OrtValue.from_dlpack

    def noted(array: Any) -> Any:
        if array.dtype == np.uint8:  # codes, not scales
            made.append(weakref.ref(array))
        return share(array)

    monkeypatch.setattr(ort.OrtValue, "from_dlpack", noted)
    session = open_tiny(tiny_bundle("int3-b32-asym-search"))
    gc.collect()
    kept = [array() for array in made if array() is not None]
    assert len(made) == 11  # the embedding and five matrices in each of two layers
    assert kept[0].shape[0] == session.info.vocab_size
    del kept
    expected = logits(session)
    gc.collect()
    np.testing.assert_array_equal(logits(session)[0], expected[0])
    del session
    gc.collect()
    assert all(array() is None for array in made)


def test_what_is_wrong_with_the_table_or_the_planes_is_said(tiny_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "copy"
    shutil.copytree(tiny_bundle("int3-b32-asym-search"), path)
    good = (path / WIDENED).read_text()
    for bad in ("{", "[]", good.replace('"offsets": [', '"offsets": [-1, '), good.replace("weights.bin", "../w.bin")):
        (path / WIDENED).write_text(bad)
        with pytest.raises(BundleError, match=r"widened\.json"):
            open_tiny_unchecked(path)
    for key, value in (("offsets", [1 << 40, 0]), ("shape", [1 << 31, 64]), ("shape", [1 << 31, 1 << 31])):
        table = json.loads(good)
        table["graphs"][0]["matrices"][0][key] = value
        (path / WIDENED).write_text(json.dumps(table))
        with pytest.raises(BundleError, match=r"weights.bin ends before embed"):
            open_tiny_unchecked(path)
    (path / WIDENED).write_text(good.replace('"version": 2', '"version": 99'))
    assert_equal(open_tiny_unchecked(path), open_tiny(tiny_bundle("int3-b32-asym-search")))


def open_tiny_unchecked(path: Path) -> DecoderSession:
    """``open_tiny`` of a bundle whose files were changed, and listed as they are."""
    relist(path)
    return open_tiny(path)


def test_an_altered_table_is_found_by_its_hash(tiny_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(tiny_bundle("int3-b32-asym-search"), tmp_path / "copy")
    table = tmp_path / "copy" / WIDENED
    table.write_text(table.read_text().replace('"bits": 3', '"bits": 5'))
    with pytest.raises(BundleError, match=r"widened.json was altered"):
        Bundle.open(tmp_path / "copy", check="full")


def test_opening_is_refused_in_one_line_where_memory_is_short(
    tiny_bundle: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_bundle("int3-b32-asym-search")
    before = as_made_before(path, tmp_path / "before")
    manifest, older = Bundle.open(path).manifest, Bundle.open(before).manifest
    weights = [(weight.name, weight.shape, weight.format) for weight in manifest.weights]
    assert opening_bytes(manifest) == manifest.predicted["weights_private"] + supplied_bytes(weights)
    assert manifest.predicted["weights_opening"] == supplied_bytes(weights)
    assert opening_bytes(older) == folded_bytes(weights) > opening_bytes(manifest)
    monkeypatch.setattr(loading, "available_memory", lambda: opening_bytes(manifest))
    open_bundle(path).close()
    with pytest.raises(BudgetError, match=r"^Opening before takes .* 3, 5 or 6 bits .*export it again with this ver"):
        open_bundle(before)
    monkeypatch.setattr(loading, "available_memory", lambda: opening_bytes(manifest) - 1)
    with pytest.raises(
        BudgetError, match=r"^Opening int3-b32-asym-search takes .*programs, or export with --format int4"
    ):
        open_bundle(path)
    fallback = dataclasses.replace(older, model=dataclasses.replace(older.model, signature="optimum"))
    assert opening_bytes(fallback) == 0
    assert Bundle.open(path).file(MODEL).is_file()
