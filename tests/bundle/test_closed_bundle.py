"""What is checked is what runs: attacks on a bundle, each refused by name, and what an identity covers."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bundle_files import copy_bundle, opened_graph, relist
from cli_support import here

from edgedistill.bundle.bundle import (
    MODEL,
    PREFILL_MODEL,
    WEIGHTS,
    WIDENED,
    WIDENED_MODELS,
    Bundle,
    LoadingFiles,
)
from edgedistill.errors import BundleError
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.verify.models.bundle import bundle_identity

if TYPE_CHECKING:
    from collections.abc import Callable

OPENED = WIDENED_MODELS[MODEL]
OTHER_GRAPH = {"name": MODEL, "stands_for": MODEL, "matrices": []}


@pytest.fixture
def bundle(tiny_bundle_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_bundle_dir, tmp_path / "bundle")


def drop_widened(bundle: Path) -> str:
    (bundle / "evil.onnx").write_bytes((bundle / MODEL).read_bytes())
    (bundle / WIDENED).write_text(json.dumps({"version": 1, "graphs": [OTHER_GRAPH | {"name": "evil.onnx"}]}))
    return "evil.onnx"


def drop_prefill(bundle: Path) -> str:
    shutil.copy(bundle / MODEL, bundle / PREFILL_MODEL)
    return PREFILL_MODEL


def drop_data(bundle: Path) -> str:
    shutil.copy(bundle / WEIGHTS, bundle / "more.bin")
    return "more.bin"


def drop_directory(bundle: Path) -> str:
    (bundle / "plugins").mkdir()
    return "plugins"


@pytest.mark.parametrize("drop", [drop_widened, drop_prefill, drop_data, drop_directory])
def test_an_unlisted_file_is_named_by_every_verb(bundle: Path, drop: Callable[[Path], str]) -> None:
    name = drop(bundle)
    for arguments in (("inspect", bundle), ("inspect", bundle, "--verify"), ("run", bundle, "hello"),
                      ("run", bundle, "hello", "--verify"), ("chat", "--plain", bundle),
                      ("audit", bundle, "--prompts", "2")):  # fmt: skip
        message = here(*arguments).one_error()
        assert name in message
        assert "does not list" in message


def test_files_for_people_may_come_along(bundle: Path) -> None:
    (bundle / "README.md").write_text("other words")
    (bundle / ".gitattributes").write_text("*.bin filter=lfs")
    relist(bundle)
    (bundle / "README.md").unlink()
    with pytest.raises(BundleError, match=r"README\.md is missing"):
        Bundle.open(bundle)
    (bundle / "README.md").write_text("other words")
    assert Bundle.open(bundle, check="full")


@pytest.mark.parametrize("name", ["manifest.json", MODEL, WEIGHTS, "tokenizer.json", "README.md"])
def test_links_are_refused_whatever_they_lead_to(bundle: Path, tmp_path: Path, name: str) -> None:
    (bundle / name).rename(tmp_path / "elsewhere")
    (bundle / name).symlink_to(tmp_path / "elsewhere")
    for check in ("size", "full"):
        with pytest.raises(BundleError, match=rf"{name} is a symbolic link.*cp -rL"):
            Bundle.open(bundle, check=check)


def test_a_link_to_the_directory_is_the_users_own(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "current").symlink_to(bundle)
    with open_bundle(tmp_path / "current", check="full") as model:
        assert model.generate("hello", raw=True).tokens


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_is_no_file_and_is_not_waited_for(bundle: Path) -> None:
    (bundle / MODEL).unlink()
    os.mkfifo(bundle / MODEL)
    with pytest.raises(BundleError, match="is a pipe"):
        Bundle.open(bundle)


@pytest.mark.parametrize("location", ["more.bin", "../outside.bin", "/etc/hostname", "*/_ORT_MEM_ADDR_/*"])
def test_external_data_must_be_listed(bundle: Path, tmp_path: Path, location: str) -> None:
    import onnx

    shutil.copy(bundle / WEIGHTS, tmp_path / "outside.bin")
    shutil.copy(bundle / WEIGHTS, bundle / ".more.bin")
    graph = onnx.load(str(bundle / opened_graph(bundle)), load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and "widened" not in tensor.name:  # those are handed over
                entry.value = location
    other = copy_bundle(bundle, tmp_path / "other", model_onnx=graph.SerializeToString())
    with pytest.raises(BundleError, match="not a file that the manifest lists"):
        Bundle.open(other, check="full")
    with pytest.raises(BundleError, match="not a file that the manifest lists"):
        open_bundle(other)
    if location == "more.bin":  # listed, it is a part of the bundle like any other
        shutil.copy(bundle / WEIGHTS, other / "more.bin")
        relist(other, "more.bin")
        with open_bundle(other, check="full") as model:
            assert model.generate("hello", raw=True).tokens


@pytest.mark.parametrize("name", [OPENED, "tokenizer.json", "chat_template.jinja", "generation.json"])
def test_files_that_are_read_whole_are_compared_by_every_open(bundle: Path, name: str) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name} was altered"):
        open_bundle(bundle)


def swap(path: Path) -> None:
    """Another file of the same size and times takes the name."""
    found = path.stat()
    other = path.with_name(".other")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    other.write_bytes(content)
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)


def overwrite(path: Path) -> None:
    found = path.stat()
    with path.open("r+b") as stream:
        stream.seek(found.st_size // 2)
        stream.write(b"\x55")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def swap_and_restore(path: Path) -> None:
    kept = path.with_name(".kept")
    path.rename(kept)
    shutil.copy(kept, path)
    kept.replace(path)


@pytest.mark.parametrize("change", [swap, overwrite])
@pytest.mark.parametrize("name", [OPENED, WEIGHTS])
def test_a_file_changed_between_check_and_load_is_refused(
    bundle: Path, name: str, change: Callable[[Path], None]
) -> None:
    opened = Bundle.open(bundle, check="full")
    change(bundle / name)
    with pytest.raises(BundleError, match=f"{name} was changed while the bundle was opened"):
        Model(opened)


@pytest.mark.parametrize("change", [swap, overwrite, swap_and_restore])
def test_weights_changed_while_the_graph_loads_are_refused(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    real = LoadingFiles.graph

    def graph(files: LoadingFiles, name: str) -> bytes:
        content = real(files, name)
        change(bundle / WEIGHTS)  # after the first look, before ONNX Runtime maps them
        return content

    opened = Bundle.open(bundle, check="full")
    monkeypatch.setattr(LoadingFiles, "graph", graph)
    with pytest.raises(BundleError, match=f"{WEIGHTS} was changed"):
        Model(opened)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="directories are pinned by descriptor on Linux")
def test_another_directory_under_the_name_is_not_what_loads(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory is exchanged while the graph loads: the weights come from the one that was opened."""
    tokens = list(range(3, 40))
    with open_bundle(bundle) as model:
        expected = model.score(tokens)
    evil = shutil.copytree(bundle, tmp_path / "evil")
    (evil / WEIGHTS).write_bytes((bundle / WEIGHTS).read_bytes()[::-1])
    real = LoadingFiles.graph

    def graph(files: LoadingFiles, name: str) -> bytes:
        content = real(files, name)
        bundle.rename(tmp_path / "aside")
        evil.rename(bundle)
        return content

    opened = Bundle.open(bundle, check="full")
    monkeypatch.setattr(LoadingFiles, "graph", graph)
    with Model(opened) as model:
        assert model.score(tokens).tolist() == expected.tolist()


CHANGES: dict[str, bytes] = {
    "tokenizer.json": b" ",
    "tokenizer_config.json": b" ",
    "chat_template.jinja": b"{# #}",
    "generation.json": b" ",
    "genai_config.json": b" ",
    MODEL: b"\x12\x01x",  # producer_name
    WEIGHTS: b"\0",
}


@pytest.mark.parametrize("name", CHANGES)
def test_the_identity_covers_every_file_that_an_answer_depends_on(bundle: Path, name: str) -> None:
    before = Bundle.open(bundle, check="full").identity()
    with (bundle / name).open("ab") as stream:
        stream.write(CHANGES[name])
    relist(bundle)
    after = Bundle.open(bundle, check="full")
    assert after.identity() != before
    assert bundle_identity(after).sha256 == after.identity()


@pytest.mark.parametrize("drop", [drop_widened, drop_prefill])
def test_files_that_are_dropped_in_and_listed_make_another_model(bundle: Path, drop: Callable[[Path], str]) -> None:
    before = Bundle.open(bundle).identity()
    name = drop(bundle)
    relist(bundle, *({name, WIDENED} if name == "evil.onnx" else {name}))
    assert Bundle.open(bundle, check="full").identity() != before


def test_the_identity_covers_the_manifest_as_far_as_answers_depend_on_it(bundle: Path) -> None:
    path = bundle / "manifest.json"
    raw = json.loads(path.read_text())
    before = Bundle.open(bundle).identity()

    def identity(**changes: object) -> str:
        path.write_text(json.dumps({**raw, **changes}))
        return Bundle.open(bundle).identity()

    assert identity() == before
    assert identity(created="another day", verification={"status": "failed"}, tool={}, check={}) == before
    assert identity(model={**raw["model"], "eos_token_ids": [1]}) != before
    assert identity(model={**raw["model"], "context_length": 64}) != before
    assert identity(profile={**raw["profile"], "context": {"prefill_chunk": 2}}) != before


def test_texts_for_people_are_no_part_of_the_identity(bundle: Path) -> None:
    before = Bundle.open(bundle).identity()
    (bundle / "README.md").write_text("other words")
    relist(bundle)
    assert Bundle.open(bundle).identity() == before


def test_inspect_shows_the_identity(bundle: Path) -> None:
    identity = Bundle.open(bundle).identity()
    assert here("inspect", bundle, "--json").json["identity"] == identity
    assert identity in here("inspect", bundle).out


@pytest.mark.parametrize("name", ["a/b", "a\\b", "C:x", ".hidden", "manifest.json", "..", "manifest.sig"])
def test_names_that_are_no_files_of_a_model_are_refused(bundle: Path, name: str) -> None:
    path = bundle / "manifest.json"
    raw = json.loads(path.read_text())
    raw["files"].append({"name": name, "size": 0, "sha256": "0" * 64})
    path.write_text(json.dumps(raw))
    with pytest.raises(BundleError, match=r"name of a file in the bundle|not a file of a model"):
        Bundle.open(bundle)
