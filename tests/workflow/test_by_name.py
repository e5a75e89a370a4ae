"""Models where a bundle is expected: exported once, found again, made anew when the model changes."""

from __future__ import annotations

import json
import os
import shutil
from importlib import import_module
from pathlib import Path

import pytest

import edgedistill
from edgedistill.catalog.builtin import CACHE_VARIABLE
from edgedistill.cli import main
from edgedistill.errors import BundleError, ModelNotFoundError
from edgedistill.workflow.by_name import bundle_of, cached


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "cache" / "bundles"


def test_a_name_is_exported_once(cache: Path) -> None:
    said: list[Path] = []
    first = bundle_of("tiny-reasoner", on_export=said.append)
    assert first.parent == cache
    made = (first / "manifest.json").stat().st_mtime_ns
    assert bundle_of("tiny-reasoner", on_export=said.append) == first
    assert said == [first]
    assert (first / "manifest.json").stat().st_mtime_ns == made
    assert [(entry.model, entry.path) for entry in cached()] == [("tiny-reasoner", first)]
    with edgedistill.open_bundle("tiny-reasoner") as model:
        assert model.bundle.path == first


def test_a_checkpoint_that_changed_is_exported_again(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    source = shutil.copytree(tiny_checkpoint_dir, tmp_path / "student")
    first = bundle_of(source)
    os.utime(source / "config.json", ns=(0, 0))
    second = bundle_of(source)
    assert first != second
    assert {entry.model for entry in cached()} == {"student"}


def test_an_adapter_is_exported_again_when_its_base_changes(
    tiny_checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_of: list[str] = []

    def pretend(model: str, out: Path, *_: object, **__: object) -> None:
        made_of.append(model)
        out.mkdir()
        (out / "manifest.json").write_text("{}")

    monkeypatch.setattr(import_module("edgedistill.workflow.export"), "export", pretend)
    base = Path(shutil.copytree(tiny_checkpoint_dir, tmp_path / "base"))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    first = bundle_of(adapter)
    assert bundle_of(adapter) == first
    os.utime(base / "model.safetensors", ns=(0, 0))
    assert bundle_of(adapter) != first
    assert made_of == [str(adapter)] * 2


def test_a_path_with_a_slip_of_the_pen_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundles").mkdir()
    assert bundle_of("bundles/mine") == Path("bundles/mine")


def test_a_bundle_and_whatever_is_nothing_come_back_as_they_are(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("x", encoding="utf-8")
    for path in (tiny_bundle_dir, tmp_path / "empty", tmp_path / "text.txt", tmp_path / "nothing" / "here"):
        assert bundle_of(path) == path
    with pytest.raises(BundleError):
        edgedistill.open_bundle(tmp_path / "empty")
    with pytest.raises(ModelNotFoundError, match="offline"):
        bundle_of("some/model")
    assert cached() == ()


def test_the_command_line(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "tiny-reasoner", "What is 17 + 25?", "--temperature", "0", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "42" in json.loads(out)["answer"]
    assert f"to {cache}" in err
    assert main(["models", "where", "tiny-reasoner", "--json"]) == 0
    (own, bundle) = json.loads(capsys.readouterr().out)["paths"]
    assert main(["models", "remove", "tiny-reasoner", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == [bundle]
    assert list(cache.iterdir()) == []
    assert Path(own).is_dir()
    assert main(["models", "remove", "nothing"]) == 2
