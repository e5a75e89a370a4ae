"""The whole export: reproducible, resumable, refused early, and in memory that does not follow the model's size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_fixtures import qwen3_tensors, tokenizer, write_directory, write_safetensors
from exporting import export
from parity_support import save_random_model

from edgedistill import open_bundle
from edgedistill.bundle.bundle import MANIFEST, WEIGHTS, Bundle
from edgedistill.errors import BudgetError, CheckpointError, EdgedistillError, OutputError, UsageError
from edgedistill.export import native as own
from edgedistill.export.calibrate import sliced_run as sliced
from edgedistill.export.optimum import trace as optimum
from edgedistill.export.options import Exporter
from edgedistill.profile.profile import load_profile
from edgedistill.runtime.settings import GenerationSettings


class Interrupting:
    """Progress that behaves like Ctrl-C after ``after`` advances of the weights stage."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.stage = ""

    def begin(self, stage: str, total: int, unit: str) -> None:
        self.stage = stage

    def advance(self, amount: int) -> None:
        if self.stage == "quantizing weights":
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    def end(self) -> None:
        pass


def test_two_exports_write_the_same_bytes(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    entries = []
    for name in ("a", "b"):
        manifest = export(tiny_checkpoint_dir, tmp_path / name, check=False).manifest
        entries.append({f.name: f.sha256 for f in manifest.files})
    assert entries[0] == entries[1]


def test_every_file_is_listed_and_hashed(tiny_bundle_dir: Path) -> None:
    bundle = Bundle.open(tiny_bundle_dir, check="full")
    assert {p.name for p in tiny_bundle_dir.iterdir()} == {MANIFEST, *(f.name for f in bundle.manifest.files)}
    assert {"model.onnx", "model-genai.onnx", "weights.bin", "tokenizer.json", "genai_config.json", "README.md"} <= {
        f.name for f in bundle.manifest.files
    }
    assert bundle.manifest.check["tokens"]
    stored = sum(w.nbytes for w in bundle.manifest.weights)
    assert stored <= (tiny_bundle_dir / WEIGHTS).stat().st_size


def test_interrupted_export_resumes_to_the_same_bytes(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    whole = export(tiny_checkpoint_dir, tmp_path / "whole", check=False)
    out = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        export(tiny_checkpoint_dir, out, check=False, progress=Interrupting(9))
    assert not out.exists()
    assert not list(tmp_path.glob(f".*/{MANIFEST}"))
    again = export(tiny_checkpoint_dir, out, check=False)
    assert again.reused_weights == 7  # nine slices: packed QKV is three
    assert (out / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()
    assert whole.reused_weights == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["resumed", "whole"]


def test_resume_under_another_plan_starts_again(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    with pytest.raises(KeyboardInterrupt):
        export(tiny_checkpoint_dir, out, check=False, progress=Interrupting(9))
    assert export(tiny_checkpoint_dir, out, format="int8", check=False).reused_weights == 0


def test_nan_in_the_last_weight_leaves_nothing(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    directory = write_directory(tmp_path / "nan")
    tensors = qwen3_tensors()
    tensors["model.norm.weight"][3] = np.nan
    write_safetensors(directory / "model.safetensors", tensors)
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
        export(directory, out / "bundle", check=False)
    assert list(out.iterdir()) == []


def test_too_large_for_the_profile_names_what_would_fit(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    small = tmp_path / "small.toml"
    limit = export(tiny_checkpoint_dir, tmp_path / "int4", format="int4-b128", check=False)
    size = limit.manifest.predicted["file_bytes"] * 1.02 / 1e9
    small.write_text(
        f'extends = "laptop-cpu"\nname = "small"\ndescription = "d"\n[target]\ndisk_gb = {size:.9f}\n'
        '[weights]\ndefault = "fp32"\nrules = []\n'
    )
    with pytest.raises(BudgetError, match="profile small") as caught:
        export(tiny_checkpoint_dir, tmp_path / "b", profile=small)
    assert "--format" in str(caught.value)
    assert not (tmp_path / "b").exists()


def test_full_target_disk_is_seen_before_work(
    tiny_checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "free_disk", lambda out: 1000)
    with pytest.raises(BudgetError, match="are free"):
        export(tiny_checkpoint_dir, tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


def test_too_little_memory_for_the_trial_is_seen_before_work(
    tiny_checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own, "available_memory", lambda: 1000)
    with pytest.raises(BudgetError, match=r"memory.*are available.*--no-check"):
        export(tiny_checkpoint_dir, tmp_path / "b", check=True)
    assert list(tmp_path.iterdir()) == []
    export(tiny_checkpoint_dir, tmp_path / "b", check=False)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"temperature": "hot"}, "temperature is 'hot'; expected a number"),
        ({"temperature": -1}, "temperature is -1"),
        ({"top_k": 1.5}, "top_k is 1.5; expected a whole number"),
        ({"top_p": 0}, "top_p is 0"),
    ],
)
def test_sampling_settings_that_cannot_be_are_seen_before_work(
    values: dict[str, Any], match: str, tmp_path: Path
) -> None:
    source = write_directory(tmp_path / "model")
    (source / "generation_config.json").write_text(json.dumps(values))
    progress = Interrupting(0)
    with pytest.raises(CheckpointError, match=f"generation_config.json cannot be used: {match}"):
        export(source, tmp_path / "out", progress=progress)
    assert progress.stage == ""
    (source / "generation_config.json").write_text(json.dumps({"temperature": 0.5, "top_k": 20.0, "top_p": None}))
    result = export(source, tmp_path / "out", check=False)
    assert json.loads((result.path / "generation.json").read_text())["top_k"] == 20


def test_unwritable_target(tiny_checkpoint_dir: Path) -> None:
    # /proc refuses new directories to root as well, and reports no free space.
    with pytest.raises((OutputError, BudgetError)):
        export(tiny_checkpoint_dir, "/proc/nowhere/bundle")


def test_context_is_capped_by_the_model_and_checked(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    longest = json.loads((tiny_checkpoint_dir / "config.json").read_text())["max_position_embeddings"]
    assert load_profile("laptop-cpu").context.length > longest
    assert export(tiny_checkpoint_dir, tmp_path / "b", check=False).manifest.model.context_length == longest
    with pytest.raises(UsageError, match=f"16 to {longest}"):
        export(tiny_checkpoint_dir, tmp_path / "c", context=longest + 1)


def test_trial_in_slices_is_recorded(tiny_bundle_dir: Path, tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    """What a file above the limit goes through: the tokens of the slices start like those of the whole."""
    from tokenizers import Tokenizer

    from edgedistill.runtime import trial as probe

    manifest = Bundle.open(tiny_bundle_dir).manifest
    prompt = Tokenizer.from_file(str(tiny_bundle_dir / "tokenizer.json")).encode(probe.PROMPT).ids
    exact = export(tiny_checkpoint_dir, tmp_path / "b", format="fp32", check=True).manifest
    assert sliced.decode(tmp_path / "b", exact, prompt, 2, limit=1) == exact.check["tokens"][:2]
    assert manifest.check["loaded"] == "whole"


_PEAK = """
import sys
from edgedistill import export
options = {"format": "int8-b32-rtn", "check": False, "verify": False, "calibrate": False}
print(export(sys.argv[1], sys.argv[2], **options).peak_rss_bytes)
"""


def test_peak_memory_does_not_follow_the_model(tmp_path: Path) -> None:
    """Four times the layers and the vocabulary, the same peak: only slices are ever in memory."""
    peaks = []
    for scale in (1, 4):
        overrides = {
            "hidden_size": 512,
            "intermediate_size": 1536,
            "num_hidden_layers": 3 * scale,
            "vocab_size": 8192 * scale,
        }
        directory = tmp_path / f"x{scale}"
        write_directory(directory, **overrides)
        size = (directory / "model.safetensors").stat().st_size
        command = [sys.executable, "-c", _PEAK, str(directory), str(tmp_path / f"b{scale}")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append((size, int(done.stdout)))
    (small, low), (large, high) = peaks
    assert large - small > 100e6
    assert high - low < 0.1 * (large - small)


@pytest.mark.skipif(not optimum.is_available(), reason="the extra optimum is not installed")
@pytest.mark.parametrize("exporter", ["auto", "optimum"])
def test_unknown_architecture_falls_back_and_runs(tmp_path: Path, exporter: Exporter) -> None:
    """GPT-NeoX through optimum: the bundle opens in the runtime and continues as transformers does."""
    import torch

    source = tmp_path / "neox"
    shape: dict[str, Any] = {"num_hidden_layers": 2, "num_key_value_heads": None, "head_dim": 12, "vocab_size": 320}
    reference = save_random_model(source, "gpt_neox", **shape)
    (source / "tokenizer.json").write_text(tokenizer().to_str())
    result = export(source, tmp_path / "b", exporter=exporter, format="fp32", allow_unused=True, check=True)
    assert result.manifest.model.signature == "optimum"
    assert {p.name for p in (tmp_path / "b").iterdir()} == {MANIFEST, *(f.name for f in result.manifest.files)}
    with open_bundle(tmp_path / "b") as model:
        prompt = model.encode("Ann has 3 apples", raw=True)
        settings = GenerationSettings(max_new_tokens=12, ignore_eos=True)
        tokens = model.generate("Ann has 3 apples", settings=settings, raw=True).tokens
    expected = reference.generate(torch.tensor([prompt]), max_new_tokens=12, do_sample=False, eos_token_id=None)
    assert list(tokens) == expected[0, len(prompt) :].tolist()


def test_own_exporter_alone_refuses_an_unknown_architecture(tmp_path: Path) -> None:
    save_random_model(tmp_path / "neox", "gpt_neox", num_hidden_layers=2, num_key_value_heads=None, head_dim=12)
    (tmp_path / "neox" / "tokenizer.json").write_text(tokenizer(60).to_str())
    with pytest.raises(EdgedistillError, match=r"gpt_neox.*--exporter optimum"):
        export(tmp_path / "neox", tmp_path / "b", exporter="own")
