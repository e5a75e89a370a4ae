"""Signed bundles: an owner's key, a device that opens nothing else, and every way to get round it."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest
from bundle_files import relist
from cli_support import here

import edgedistill
from edgedistill.bundle.bundle import Bundle
from edgedistill.bundle.signature import SIGNATURE, TRUSTED_KEY
from edgedistill.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("cryptography")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    assert here("sign", "--new-key", tmp_path / "owner").code == 0
    return tmp_path / "owner.pub"


@pytest.fixture
def signed(tiny_bundle_dir: Path, tmp_path: Path, key: Path) -> Path:
    bundle = shutil.copytree(tiny_bundle_dir, tmp_path / "bundle")
    result = here("sign", bundle, "--key", tmp_path / "owner", "--json")
    assert result.code == 0
    assert result.json["identity"] == Bundle.open(bundle).identity()
    return bundle


def test_what_the_owner_signed_runs(signed: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (("inspect", signed), ("run", signed, "hello", "-n", "2"), ("chat", "--plain", signed)):
        assert here(*arguments, "--trusted-key", key).code == 0
    assert here("inspect", signed, "--json", "--trusted-key", key).json["verified"] == "sha256"
    with edgedistill.open_bundle(signed, trusted=key) as model:
        assert model.bundle.path == signed
    monkeypatch.setenv(TRUSTED_KEY, str(key))
    assert here("run", signed, "hello", "-n", "2").code == 0


def test_what_is_not_signed_or_by_another_is_refused(tiny_bundle_dir: Path, signed: Path, tmp_path: Path) -> None:
    assert here("sign", "--new-key", tmp_path / "other").code == 0
    for bundle, words in ((tiny_bundle_dir, "is not signed"), (signed, "is signed by another key")):
        for verb in ("inspect", "run", "verify"):
            more = {"run": ("hello",), "verify": ("--reference", tiny_bundle_dir)}.get(verb, ())
            message = here(verb, bundle, *more, "--trusted-key", tmp_path / "other.pub").one_error()
            assert words in message
            assert "other.pub" in message
        with pytest.raises(BundleError, match=words):
            edgedistill.open_bundle(bundle, trusted=tmp_path / "other.pub")


def test_a_changed_file_is_refused_listed_anew_or_not(signed: Path, key: Path) -> None:
    content = bytearray((signed / "weights.bin").read_bytes())
    content[100] ^= 1
    (signed / "weights.bin").write_bytes(content)
    assert "weights.bin was altered" in here("run", signed, "hello", "--trusted-key", key).one_error()
    relist(signed)
    assert "was altered since it was signed" in here("run", signed, "hello", "--trusted-key", key).one_error()


def test_a_record_in_the_manifest_is_signed_too(signed: Path, key: Path) -> None:
    path = signed / "manifest.json"
    path.write_text(path.read_text().replace('"verification": {', '"verification": {"status": "checked", ', 1))
    assert "was altered since it was signed" in here("inspect", signed, "--trusted-key", key).one_error()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": 2}', "\udcff", '{"format": 1, "algorithm": "none"}'])
def test_a_malformed_signature(signed: Path, key: Path, content: str) -> None:
    (signed / SIGNATURE).write_bytes(content.encode("utf-8", "surrogateescape"))
    assert "is malformed" in here("inspect", signed, "--trusted-key", key).one_error()


def test_a_signature_of_other_bytes(signed: Path, key: Path) -> None:
    raw = json.loads((signed / SIGNATURE).read_text())
    raw["signature"] = raw["signature"][::-1].replace("=", "A")[:-2] + "=="
    (signed / SIGNATURE).write_text(json.dumps(raw))
    assert here("inspect", signed, "--trusted-key", key).code == 2


def test_keys_that_do_not_do(signed: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no key")
    for verb, option in (("sign", "--key"), ("inspect", "--trusted-key")):
        assert "is not a key" in here(verb, signed, option, tmp_path / "text").one_error()
        assert "Cannot read the key" in here(verb, signed, option, tmp_path / "none").one_error()
        # The other half of the pair.
        wrong = tmp_path / ("owner.pub" if verb == "sign" else "owner")
        assert "key" in here(verb, signed, option, wrong).one_error()


def test_a_key_is_never_overwritten_and_is_the_owners_alone(tmp_path: Path, key: Path) -> None:
    before = (tmp_path / "owner").read_bytes()
    assert stat.S_IMODE((tmp_path / "owner").stat().st_mode) == 0o600
    assert "already exists" in here("sign", "--new-key", tmp_path / "owner").one_error()
    assert (tmp_path / "owner").read_bytes() == before


def test_an_altered_bundle_is_not_signed(tiny_bundle_dir: Path, tmp_path: Path, key: Path) -> None:
    bundle = shutil.copytree(tiny_bundle_dir, tmp_path / "bundle")
    (bundle / "extra.bin").write_bytes(b"x")
    assert "extra.bin" in here("sign", bundle, "--key", tmp_path / "owner").one_error()
    assert not (bundle / SIGNATURE).exists()


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")
def test_keys_of_openssh(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    bundle = shutil.copytree(tiny_bundle_dir, tmp_path / "bundle")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "id")]
    subprocess.run(command, check=True)
    assert here("sign", bundle, "--key", tmp_path / "id").code == 0
    assert here("inspect", bundle, "--trusted-key", tmp_path / "id.pub").code == 0
    subprocess.run(["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(tmp_path / "id")], check=True)
    assert "is encrypted" in here("sign", bundle, "--key", tmp_path / "id").one_error()
