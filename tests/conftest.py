"""Fixtures for every directory: a tiny random Qwen3 checkpoint and the bundle that the real pipeline makes of it."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

# One thread a process, and one core a worker: workers and the commands that they start do not fight over the machine.
# (Before NumPy is loaded; ONNX Runtime and PyTorch count the cores that they may use.)
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
_worker = os.environ.get("PYTEST_XDIST_WORKER", "")
if _worker.startswith("gw") and hasattr(os, "sched_setaffinity"):
    _cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {_cores[int(_worker[2:]) % len(_cores)]})

import hypothesis  # noqa: E402
import numpy as np  # noqa: E402
import psutil  # noqa: E402
import pytest  # noqa: E402
from shared import made_once  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

# How long an example takes depends on the machine and on what else it does.
hypothesis.settings.register_profile("edgedistill", deadline=None)
hypothesis.settings.load_profile("edgedistill")

# A run started in the background by a shell without job control inherits an ignored Ctrl-C, and so would every command
# that the tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["sampled_bundles", "template_helpers"]

WORKER_BYTES = 2 * 1024**3  # with PyTorch and the commands that a test starts


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """``-n auto``: one worker per core that the memory has room for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, psutil.virtual_memory().available // WORKER_BYTES))


_MODULES: pytest.StashKey[int] = pytest.StashKey()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Take what many new imports left out of the sight of the garbage collector.

    With PyTorch, transformers and SciPy it is half a million objects, which every collection would look through: a
    third of a second after each command that runs in this process.
    """
    loaded = len(sys.modules)
    if loaded > item.config.stash.get(_MODULES, 0) + 100:
        gc.collect()
        gc.freeze()
        item.config.stash[_MODULES] = loaded


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
    return made_once(tmp_path_factory, "checkpoint/tiny-qwen3", write_tiny_checkpoint)


@pytest.fixture(scope="session")
def tiny_bundle_dir(tiny_checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the tiny checkpoint for the profile laptop-cpu; copy it before changing it."""
    from exporting import export

    return made_once(
        tmp_path_factory, "bundle/tiny", lambda out: export(tiny_checkpoint_dir, out, profile="laptop-cpu", check=True)
    )


@pytest.fixture(scope="session")
def roomy_bundle_dir(tiny_checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with a context of 4096 tokens; its template knows no tools. Read-only by convention."""

    from exporting import export

    def make(out: Path) -> Path:
        source = out.parent / "roomy-checkpoint"
        shutil.copytree(tiny_checkpoint_dir, source)
        config = json.loads((source / "config.json").read_text())
        (source / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 4096}))
        return export(source, out, format="int8", context=4096, check=False).path

    return made_once(tmp_path_factory, "bundles/roomy", make)


@pytest.fixture
def user_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user's own profiles lie, empty."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    directory = tmp_path / "config" / "edgedistill" / "profiles"
    directory.mkdir(parents=True)
    return directory


@pytest.fixture(autouse=True)
def _console_as_at_the_start() -> Iterator[None]:
    """A command that runs in this process leaves its --quiet and --color behind."""
    from edgedistill.cli import console

    yield
    console.configure(quiet=False, color="auto")
