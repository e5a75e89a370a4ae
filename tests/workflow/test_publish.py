"""push and pull through huggingface_hub itself, against a hub on this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import Result
from fake_hub import COMMIT, FakeHub, fake_hub

from edgedistill.bundle.bundle import Bundle
from edgedistill.export.model_card import front_matter


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as running:
        yield running


def run(hub: FakeHub, tmp_path: Path, *arguments: str, token: str | None = "hf_writer", **more: str) -> Result:
    """The command in a process of its own: huggingface_hub reads its environment when it is imported."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "EDGEDISTILL_"))}
    env = kept | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"} | more
    if token is not None:
        env["HF_TOKEN"] = token
    command = [sys.executable, "-m", "edgedistill", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=300, check=False, cwd=tmp_path)
    return Result(done.returncode, done.stdout, done.stderr)


def test_what_is_pushed_comes_back(hub: FakeHub, tmp_path: Path, reasoner_dir: Path) -> None:
    pushed = run(hub, tmp_path, "push", str(reasoner_dir), "me/tiny", "--private", "--json")
    assert pushed.code == 0, pushed.err
    identity = Bundle.open(reasoner_dir).identity()
    assert pushed.json == {
        "repository": "me/tiny", "url": f"{hub.address}/me/tiny", "commit": COMMIT, "identity": identity
    }  # fmt: skip
    assert hub.private == {"me/tiny"}
    assert set(hub.repositories["me/tiny"]) == {path.name for path in reasoner_dir.iterdir() if path.name[0] != "."}
    assert hub.messages == ["tiny-reasoner as a bundle of edgedistill"]
    hub.repositories["me/tiny"]["notes.txt"] = b"of somebody else: no part of the bundle"
    pulled = run(hub, tmp_path, "pull", "me/tiny", "-o", "back", "--json", token=None)
    assert pulled.code == 0, pulled.err
    assert pulled.json == {"path": "back", "repository": "me/tiny", "identity": identity}
    assert {p.name for p in (tmp_path / "back").iterdir()} == set(hub.repositories["me/tiny"]) - {"notes.txt"}
    again = run(hub, tmp_path, "pull", "me/tiny", "-o", "back")
    assert "replaces nothing" in again.one_error()
    offline = run(hub, tmp_path, "pull", "me/tiny", "-o", "again", HF_HUB_OFFLINE="1")
    assert offline.code == 0, offline.err


def test_a_repository_for_every_program(hub: FakeHub, tmp_path: Path, reasoner_dir: Path) -> None:
    pushed = run(hub, tmp_path, "push", str(reasoner_dir), "me/all", "--layout", "hub", "--message", "first")
    assert pushed.code == 0, pushed.err
    assert "edgedistill pull me/all -o all" in pushed.out
    assert {"config.json", "onnx/model_q4.onnx", "edgedistill/manifest.json"} <= set(hub.repositories["me/all"])
    assert hub.messages == ["first"]
    pulled = run(hub, tmp_path, "pull", "me/all", "-o", "back")
    assert pulled.code == 0, pulled.err
    assert Bundle.open(tmp_path / "back", check="full").identity() == Bundle.open(reasoner_dir).identity()


def test_a_bundle_on_the_hub_runs_by_its_name(hub: FakeHub, tmp_path: Path, reasoner_dir: Path) -> None:
    """Pulled once, with a line that says how much and to where; afterwards without the network; a damaged one never."""
    hub.repositories["me/tiny"] = {f"edgedistill/{p.name}": p.read_bytes() for p in reasoner_dir.iterdir()}
    hub.repositories["me/tiny"] |= {"config.json": b"{}", "manifest.json": b'{"name": "of another program"}'}
    asked = ("run", "me/tiny", "What is 17 + 25?", "--temperature", "0", "--json")
    cache = {"EDGEDISTILL_CACHE": str(tmp_path / "cache")}
    first = run(hub, tmp_path, *asked, **cache)
    assert first.code == 0, first.err
    assert "42" in first.json["answer"]
    (kept,) = (tmp_path / "cache" / "bundles").iterdir()
    assert f"to {kept}" in first.err
    assert "pulling the bundle me/tiny (" in first.err
    again = run(hub, tmp_path, *asked, HF_HUB_OFFLINE="1", **cache)
    assert (again.code, again.json["answer"]) == (0, first.json["answer"])
    assert "pulling" not in again.err
    hub.repositories["me/other"] = dict(hub.repositories["me/tiny"])
    hub.repositories["me/other"]["edgedistill/generation.json"] += b" "
    refused = run(hub, tmp_path, "run", "me/other", "What is 17 + 25?", **cache)
    assert (refused.code, refused.out) == (2, "")
    assert "generation.json" in refused.err.splitlines()[-1]
    assert list((tmp_path / "cache" / "bundles").iterdir()) == [kept]


def test_what_was_altered_on_the_hub_does_not_arrive(hub: FakeHub, tmp_path: Path, reasoner_dir: Path) -> None:
    assert run(hub, tmp_path, "push", str(reasoner_dir), "me/tiny").code == 0
    weights = bytearray(hub.repositories["me/tiny"]["weights.bin"])
    weights[1000] ^= 1
    hub.repositories["me/tiny"]["weights.bin"] = bytes(weights)
    message = run(hub, tmp_path, "pull", "me/tiny", "-o", "back").one_error()
    assert "weights.bin" in message
    assert not [path for path in tmp_path.iterdir() if "back" in path.name]


def test_what_is_refused(hub: FakeHub, tmp_path: Path, reasoner_dir: Path) -> None:
    bundle = str(reasoner_dir)
    assert "needs a login" in run(hub, tmp_path, "push", bundle, "me/tiny", token=None).one_error()
    assert "offline" in run(hub, tmp_path, "push", bundle, "me/tiny", HF_HUB_OFFLINE="1").one_error()
    assert "refuses to write to me/forbidden" in run(hub, tmp_path, "push", bundle, "me/forbidden").one_error()
    assert "refuses to write to me/tiny" in run(hub, tmp_path, "push", bundle, "me/tiny", token="hf_x").one_error()
    assert "not a hub id" in run(hub, tmp_path, "push", bundle, "no id at all").one_error()
    assert "has no model me/absent" in run(hub, tmp_path, "pull", "me/absent", "-o", "out").one_error()
    hub.repositories["me/other"] = {"config.json": b"{}"}
    assert "holds no bundle of edgedistill" in run(hub, tmp_path, "pull", "me/other", "-o", "out").one_error()
    damaged = tmp_path / "damaged"
    shutil.copytree(reasoner_dir, damaged)
    (damaged / "generation.json").write_text("{}")
    assert "generation.json" in run(hub, tmp_path, "push", str(damaged), "me/tiny").one_error()
    assert "me/tiny" not in hub.repositories, "nothing is made before the bundle was looked at"


def test_the_front_matter_is_what_the_hub_takes(
    hub: FakeHub, monkeypatch: pytest.MonkeyPatch, reasoner_dir: Path
) -> None:
    """Read back by huggingface_hub's own card: licence, relation to the base, and the results of a verification."""
    from dataclasses import replace

    from huggingface_hub import ModelCard, ModelCardData

    manifest = Bundle.open(reasoner_dir).manifest
    record = {
        "status": "checked", "suite": {"name": "arithmetic", "sha256": "0" * 64}, "prompts": 30, "samples": 4,
        "accuracy": {"value": 0.875}, "entropy_bits": {"value": 0.32}, "agreement": None,
    }  # fmt: skip
    source = manifest.source | {"kind": "hub", "name": "org/model", "revision": "a" * 40, "license": "Apache-2.0"}
    card = ModelCard(front_matter(replace(manifest, source=source, verification=record)) + "\n# title\n")
    assert isinstance(card.data, ModelCardData)
    data = card.data.to_dict()
    assert data["license"] == "apache-2.0"
    assert (data["base_model"], data["base_model_relation"]) == ("org/model", "quantized")
    assert (data["pipeline_tag"], data["library_name"]) == ("text-generation", "edgedistill")
    assert [(r.dataset_name, r.metric_type, r.metric_value) for r in card.data.eval_results or ()] == [
        ("arithmetic, 30 prompts x 4 samples", "accuracy", 0.875),
        ("arithmetic, 30 prompts x 4 samples", "entropy_bits", 0.32),
    ]
    own = ModelCard(front_matter(replace(manifest, source=manifest.source | {"license": "My licence"})))
    assert isinstance(own.data, ModelCardData)
    assert (own.data.license, own.data.to_dict()["license_name"]) == ("other", "My licence")
    assert own.data.base_model is None, "a built-in model has no place on the Hub"
    assert json.loads(json.dumps(data)) == data
