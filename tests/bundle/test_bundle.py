"""Bundles: a manifest round trip, and every kind of damage is refused in one clear sentence."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from edgedistill.bundle.bundle import MANIFEST, Bundle, file_entry
from edgedistill.bundle.manifest import SCHEMA_VERSION, KVCacheInfo, Manifest, ModelInfo, WeightEntry
from edgedistill.errors import BundleError
from edgedistill.quantize.spec import FLOAT32, WeightFormat


def make_manifest(root: Path, names: list[str]) -> Manifest:
    model = ModelInfo("qwen3", 64, 2, 4, 2, 16, 100, 128, (1, 2), None, 0, False)
    weights = (
        WeightEntry("embed", (100, 64), WeightFormat(bits=8, block_size=64), 7000),
        WeightEntry("final_norm", (64,), FLOAT32, 256),
    )
    return Manifest(
        created="2026-01-01T00:00:00+00:00",
        tool={"edgedistill": "0.1.0"},
        source={"kind": "directory", "name": "x", "sha256": "00"},
        profile={"name": "laptop-cpu"},
        model=model,
        kv_cache=KVCacheInfo("float32", 256),
        parameters=6464,
        bits_per_weight=8.9,
        weights=weights,
        files=tuple(file_entry(root, name) for name in names),
    )


@pytest.fixture
def bundle_dir(tmp_path: Path) -> Path:
    (tmp_path / "model.onnx").write_bytes(b"")
    (tmp_path / "weights.bin").write_bytes(bytes(range(256)) * 8)
    manifest = make_manifest(tmp_path, ["model.onnx", "weights.bin"])
    (tmp_path / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return tmp_path


def edit(path: Path, **changes: object) -> None:
    raw = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    raw.update(changes)
    (path / MANIFEST).write_text(json.dumps(raw), encoding="utf-8")


def test_manifest_round_trip(bundle_dir: Path) -> None:
    manifest = Bundle.open(bundle_dir, check="full").manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.model.eos_token_ids == (1, 2)
    assert manifest.weights[0].format == WeightFormat(bits=8, block_size=64)


def test_a_name_that_is_not_listed_is_no_file_of_the_bundle(bundle_dir: Path) -> None:
    bundle = Bundle.open(bundle_dir)
    with pytest.raises(BundleError, match="no file stray"):
        bundle.file("stray")
    with pytest.raises(BundleError, match="no file stray"):
        bundle.read("stray")


def test_altered_byte_is_found_by_full_check_only(bundle_dir: Path) -> None:
    data = bytearray((bundle_dir / "weights.bin").read_bytes())
    data[100] ^= 1
    (bundle_dir / "weights.bin").write_bytes(data)
    Bundle.open(bundle_dir)
    with pytest.raises(BundleError, match=r"weights\.bin was altered"):
        Bundle.open(bundle_dir, check="full")


def test_truncated_file(bundle_dir: Path) -> None:
    (bundle_dir / "weights.bin").write_bytes(b"short")
    with pytest.raises(BundleError, match="has 5 bytes, the manifest says 2048"):
        Bundle.open(bundle_dir)


def test_missing_file(bundle_dir: Path) -> None:
    (bundle_dir / "weights.bin").unlink()
    with pytest.raises(BundleError, match="is missing"):
        Bundle.open(bundle_dir)


def test_newer_schema_says_upgrade(bundle_dir: Path) -> None:
    edit(bundle_dir, schema_version=SCHEMA_VERSION + 1)
    with pytest.raises(BundleError, match=f"schema {SCHEMA_VERSION + 1}.*or a newer one"):
        Bundle.open(bundle_dir)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd"])
def test_file_outside_the_bundle_is_refused(bundle_dir: Path, name: str) -> None:
    edit(bundle_dir, files=[{"name": name, "size": 1, "sha256": "0"}])
    with pytest.raises(BundleError, match=r"files\[0\]\.name.*the name of a file in the bundle"):
        Bundle.open(bundle_dir)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema_version": 1}', '{"schema_version": "1"}'])
def test_malformed_manifest(bundle_dir: Path, text: str) -> None:
    (bundle_dir / MANIFEST).write_text(text, encoding="utf-8")
    with pytest.raises(BundleError):
        Bundle.open(bundle_dir)


def test_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="found nothing"):
        Bundle.open(tmp_path / "none")
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        Bundle.open(tmp_path)


def test_manifest_declares_every_field_in_json(bundle_dir: Path) -> None:
    raw = json.loads((bundle_dir / MANIFEST).read_text(encoding="utf-8"))
    assert set(raw) == {f.name for f in dataclasses.fields(Manifest)}
