"""Every kind of bad input a user can give: one line that says what is wrong, exit code 2, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from checkpoint_fixtures import qwen3_tensors, write_raw, write_safetensors, write_shards
from cli_support import edgedistill, here

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli_support import Result


@pytest.fixture
def checkpoint(tiny_checkpoint_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint to spoil."""
    return shutil.copytree(tiny_checkpoint_dir, tmp_path / "spoilt")


@pytest.fixture
def bundle(tiny_bundle_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny bundle to spoil."""
    return shutil.copytree(tiny_bundle_dir, tmp_path / "bundle")


def export(checkpoint: Path, *options: object, **environment: str) -> Result:
    """Export to ``out`` beside the checkpoint, unchecked; with ``environment`` in a process of its own."""
    out = checkpoint.parent / "out"
    command: Any = edgedistill if environment else here
    result: Result = command(
        "export", checkpoint, "-o", out, "--no-check", "--no-verify", *options,
        home=checkpoint.parent / "home", **environment,
    )  # fmt: skip
    return result


def refused(result: Result, directory: Path) -> str:
    """The one line of a refused export that left nothing behind."""
    message = result.one_error()
    assert not (directory / "out").exists()
    assert not list(directory.glob(".out*"))
    return message


def edit_config(checkpoint: Path, **changes: Any) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def missing_weights(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()


def truncated_weights(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def terabyte_header(checkpoint: Path) -> None:
    write_raw(checkpoint / "model.safetensors", b"{}", b"", length=1 << 42)


def escaping_index(checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    tensors = qwen3_tensors()
    write_shards(checkpoint, tensors, dict.fromkeys(tensors, "../elsewhere.safetensors"))


def bad_values(value: float) -> Callable[[Path], None]:
    def spoil(checkpoint: Path) -> None:
        tensors = qwen3_tensors({"hidden_size": 64, "intermediate_size": 96, "head_dim": 32})
        tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = value
        write_safetensors(checkpoint / "model.safetensors", tensors)

    return spoil


def unsupported_architecture(checkpoint: Path) -> None:
    edit_config(checkpoint, model_type="mamba9", architectures=["Mamba9ForCausalLM"])


def unsupported_rope(checkpoint: Path) -> None:
    edit_config(checkpoint, rope_scaling={"rope_type": "spiral", "factor": 2.0})


def disagreeing_vocabulary(checkpoint: Path) -> None:
    tensors = qwen3_tensors({"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "vocab_size": 40})
    edit_config(checkpoint, vocab_size=40)
    write_safetensors(checkpoint / "model.safetensors", tensors)


def disagreeing_shape(checkpoint: Path) -> None:
    edit_config(checkpoint, intermediate_size=97)


def broken_config(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")


def missing_tokenizer(checkpoint: Path) -> None:
    (checkpoint / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (missing_weights, ("safetensors",)),
        (truncated_weights, ("model.safetensors", "bytes")),
        (terabyte_header, ("model.safetensors", "header")),
        (escaping_index, ("elsewhere.safetensors", "outside")),
        (bad_values(float("nan")), ("layers.1.mlp.up_proj", "NaN")),
        (bad_values(float("inf")), ("layers.1.mlp.up_proj", "Inf")),
        (unsupported_architecture, ("mamba9", "families")),
        (unsupported_rope, ("spiral", "yarn")),
        (disagreeing_vocabulary, ("40",)),
        (disagreeing_shape, ("97",)),
        (broken_config, ("config.json",)),
        (missing_tokenizer, ("tokenizer.json",)),
    ],
)
def test_spoilt_checkpoints(spoil: Callable[[Path], None], words: tuple[str, ...], checkpoint: Path) -> None:
    spoil(checkpoint)
    message = refused(export(checkpoint, "--exporter", "own"), checkpoint.parent)
    for word in words:
        assert word.lower() in message.lower()


@pytest.mark.parametrize(
    "options",
    [
        ("--calibration", "TEXT"),
        ("--calibration", "TEXT", "--max-kl", "0.1"),
        ("--calibration", "TEXT", "--max-kl", "0.1", "--sensitivity", "estimated"),
        ("--calibrate",),
        ("--format", "w8a8"),
        ("--format", "fp32"),
    ],
)
def test_values_that_are_not_finite_in_every_kind_of_export(options: tuple[str, ...], checkpoint: Path) -> None:
    bad_values(float("nan"))(checkpoint)
    text = checkpoint.parent / "text.txt"
    text.write_text("Ann has 3 apples and buys 4 more. " * 40)
    message = refused(export(checkpoint, *(text if one == "TEXT" else one for one in options)), checkpoint.parent)
    assert "nan" in message.lower()
    assert "layers.1.mlp.up" in message
    assert not list((checkpoint.parent / "home").rglob("*.bin"))


def test_an_unknown_architecture_where_optimum_is_not_installed(checkpoint: Path) -> None:
    unsupported_architecture(checkpoint)
    site = checkpoint.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text("import sys\nsys.modules['optimum'] = None\n")
    message = refused(export(checkpoint, PYTHONPATH=str(site)), checkpoint.parent)
    assert "mamba9" in message
    assert "--exporter optimum" in message
    message = refused(export(checkpoint, "--exporter", "optimum", PYTHONPATH=str(site)), checkpoint.parent)
    assert "the extra 'optimum'" in message


def test_gguf_with_an_unknown_tensor_type(checkpoint: Path) -> None:
    path = checkpoint / "model.gguf"
    name, architecture = b"token_embd.weight", b"general.architecture"
    content = b"GGUF" + struct.pack("<IQQ", 3, 1, 1)
    content += struct.pack("<Q", len(architecture)) + architecture + struct.pack("<IQ", 8, 5) + b"llama"
    content += struct.pack("<Q", len(name)) + name + struct.pack("<IQIQ", 1, 32, 999, 0)
    path.write_bytes(content + b"\0" * 256)
    message = refused(here("export", path, "-o", checkpoint.parent / "out"), checkpoint.parent)
    assert "999" in message


def test_a_model_that_is_nothing(tmp_path: Path) -> None:
    message = refused(here("export", "no-such-thing", "--offline", "-o", tmp_path / "out", home=tmp_path), tmp_path)
    assert "no-such-thing" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('name = "x', ("line 1",)),
        ('extends = "laptop-cpu"\n[target]\nrma_gb = 3\n', ("rma_gb", "ram_gb")),
        ('extends = "laptop-cpu"\n[weights]\ndefault = "int7"\n', ("int7",)),
    ],
)
def test_broken_profiles(text: str, words: tuple[str, ...], checkpoint: Path) -> None:
    profile = checkpoint.parent / "mine.toml"
    profile.write_text(text)
    message = refused(export(checkpoint, "--profile", profile), checkpoint.parent)
    for word in words:
        assert word in message


def test_unknown_profile(checkpoint: Path) -> None:
    assert "laptop-cpu" in refused(export(checkpoint, "--profile", "labtop-cpu"), checkpoint.parent)


@pytest.mark.parametrize("options", [("--format", "int7"), ("--block-size", "48"), ("--context", "100000")])
def test_options_out_of_range(options: tuple[str, ...], checkpoint: Path) -> None:
    assert options[1].removeprefix("int") in refused(export(checkpoint, *options), checkpoint.parent)


def test_not_enough_memory(checkpoint: Path) -> None:
    profile = checkpoint.parent / "small.toml"
    profile.write_text('extends = "laptop-cpu"\n[target]\nram_gb = 0.001\n')
    assert "memory" in refused(export(checkpoint, "--profile", profile), checkpoint.parent).lower()


def test_a_bundle_larger_than_the_target_allows(checkpoint: Path) -> None:
    profile = checkpoint.parent / "small.toml"
    profile.write_text('extends = "laptop-cpu"\n[target]\ndisk_gb = 0.00001\n')
    assert "disk" in refused(export(checkpoint, "--profile", profile), checkpoint.parent).lower()


def test_output_in_use(checkpoint: Path) -> None:
    out = checkpoint.parent / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("do not touch")
    for options in ((), ("--force",)):
        assert str(out) in export(checkpoint, *options).one_error()
    assert (out / "thesis.txt").read_text() == "do not touch"


def test_output_that_holds_a_bundle_needs_force(checkpoint: Path, bundle: Path) -> None:
    before = (bundle / "manifest.json").read_text()
    arguments = ("export", checkpoint, "-o", bundle, "--no-check", "--no-verify", "--format", "fp32")
    assert "--force" in here(*arguments).one_error()
    assert (bundle / "manifest.json").read_text() == before
    assert here(*arguments, "--force").code == 0
    assert here("inspect", bundle, "--verify", "--json").json["manifest"]["bits_per_weight"] == 32


def test_output_is_a_file(checkpoint: Path) -> None:
    out = checkpoint.parent / "out"
    out.write_text("a file")
    assert "not a directory" in export(checkpoint).one_error()


def test_output_where_nothing_can_be_written(checkpoint: Path) -> None:
    # /proc takes no new directories from anybody, root included.
    assert "choose another" in here("export", checkpoint, "-o", "/proc/bundle", "--no-check").one_error()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_in_a_directory_without_permission(checkpoint: Path) -> None:
    locked = checkpoint.parent / "locked"
    locked.mkdir(mode=0o500)
    assert "not writable" in here("export", checkpoint, "-o", locked / "out", "--no-check").one_error()


def test_disk_full_in_mid_write(checkpoint: Path) -> None:
    # A process of its own with a patched pwrite: the third write finds the disk full.
    site = checkpoint.parent / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import errno, os\nreal, calls = os.pwrite, []\n"
        "def pwrite(*arguments):\n    calls.append(1)\n"
        "    if len(calls) > 2: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))\n"
        "    return real(*arguments)\nos.pwrite = pwrite\n"
    )
    message = refused(export(checkpoint, PYTHONPATH=str(site)), checkpoint.parent)
    assert "space" in message.lower()


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{ messages.__class__.__mro__ }}", ("template",)),
        ("{% for i in range(10 ** 9) %}{% for j in range(10 ** 9) %}x{% endfor %}{% endfor %}", ("template",)),
        ("{% for m in messages %}", ("template",)),
    ],
)
def test_hostile_chat_templates(template: str, words: tuple[str, ...], checkpoint: Path) -> None:
    (checkpoint / "chat_template.jinja").write_text(template)
    exported = export(checkpoint)
    if exported.code == 0:
        exported = here("run", checkpoint.parent / "out", "hello")
    message = exported.one_error()
    for word in words:
        assert word in message.lower()
