"""Fixtures for every directory: a tiny random Qwen3 checkpoint and the bundle that the real pipeline makes of it."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

# A run started in the background by a shell without job control inherits an ignored Ctrl-C, and so would every command
# that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["sampled_bundles"]

_TEMPLATE = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}"""


def write_tiny_checkpoint(directory: Path, seed: int = 0) -> Path:
    """A random Qwen3 with two layers, tied embeddings and a byte-level tokenizer, as a Hugging Face directory.

    Weights are scaled so that activations and logits spread as in a trained model: greedy choices are not ties.
    """
    from checkpoint_fixtures import qwen3_tensors, write_directory, write_safetensors

    overrides = {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32, "max_position_embeddings": 512}
    write_directory(directory, **overrides)
    (directory / "chat_template.jinja").write_text(_TEMPLATE)
    tensors = qwen3_tensors(overrides, seed)
    for name, tensor in tensors.items():
        if "norm" in name:
            tensors[name] = np.float32(1) + tensor
        else:
            tensors[name] = tensor * np.float32(20 / np.sqrt(tensor.shape[-1]))
    write_safetensors(directory / "model.safetensors", tensors)
    return directory


@pytest.fixture(scope="session")
def tiny_checkpoint_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint directory; read-only by convention."""
    return write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny-qwen3")


@pytest.fixture(scope="session")
def tiny_bundle_dir(tiny_checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny checkpoint for the profile laptop-cpu; copy it before changing it."""
    from exporting import export

    return export(tiny_checkpoint_dir, tmp_path_factory.mktemp("bundle") / "tiny", profile="laptop-cpu").path


@pytest.fixture
def user_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user's own profiles lie, empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    directory = tmp_path / "config" / "edgedistill" / "profiles"
    directory.mkdir(parents=True)
    return directory
