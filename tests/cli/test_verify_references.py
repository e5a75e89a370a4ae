"""The less usual references, and bundles of the fallback exporter, through the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from cli_support import here

from edgedistill.export.optimum import trace as fallback
from edgedistill.verify.models import torch as torch_model

SMALL = ("--samples", 2, "--no-store", "--fast")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whatever a random model says is the answer."""
    path = tmp_path_factory.mktemp("suite") / "texts.jsonl"
    header = {"suite": "texts", "sampling": {"temperature": 0.5, "max_new_tokens": 24}}
    prompts = [{"id": f"p{i}", "prompt": f"Say {i}", "extract": "text"} for i in range(8)]
    path.write_text("\n".join(json.dumps(line) for line in (header, *prompts)))
    return path


def test_the_original_in_pytorch(tiny_bundle_dir: Path, tiny_checkpoint_dir: Path, suite: Path) -> None:
    pytest.importorskip("transformers")
    options = ("--suite", suite, *SMALL)
    done = here("verify", tiny_bundle_dir, "--reference", f"hf:{tiny_checkpoint_dir}", *options, "--json")
    assert done.code in (0, 1, 3), done.err
    report = done.report
    assert report["reference"]["kind"] == "hf"
    assert report["gate"] is not None
    assert report["tokens"]["forced"]["kl"]["value"] > 0
    # The bundle does not know in which directory its original lies.
    bare = here("verify", tiny_bundle_dir, "--reference", "hf", *options)
    assert "--reference hf:PATH" in bare.one_error()
    missing = here("verify", tiny_bundle_dir, "--reference", "hf:/no/such/place", *options)
    assert "/no/such/place" in missing.one_error()


def test_an_original_larger_than_memory_scores_and_there_is_no_gate(
    tiny_bundle_dir: Path,
    tiny_checkpoint_dir: Path,
    suite: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("transformers")
    from edgedistill.cli import main

    monkeypatch.setattr(torch_model, "_MEMORY_SHARE", 0.0)
    arguments = ["verify", tiny_bundle_dir, "--reference", f"hf:{tiny_checkpoint_dir}", "--suite", suite]
    # Of the presets, only the default scores the bundle's own replies.
    code = main([str(a) for a in (*arguments, "--samples", 4, "--no-store", "--json")])
    printed = capsys.readouterr()
    assert code == 3, printed.err
    report: dict[str, Any] = json.loads(printed.out)
    assert report["gate"] is None
    assert report["reference"]["kind"] == "hf"
    assert report["tokens"]["on_policy"]["kl"]["value"] > 0
    assert any("does not fit the memory" in note for note in report["notes"])


def test_a_baseline_of_another_model_is_refused(
    tiny_bundle_dir: Path, tiny_checkpoint_dir: Path, suite: Path, tmp_path: Path
) -> None:
    from exporting import export

    other = tmp_path / "another-student"
    shutil.copytree(tiny_checkpoint_dir, other)  # the same tokenizer under another name
    stranger = export(other, tmp_path / "bundle", profile="laptop-cpu", format="fp32", check=False).path
    baseline = tmp_path / "x.baseline"
    made = here("baseline", "create", stranger, "-o", baseline, "--suite", suite, *SMALL)
    assert made.code == 0, made.err
    used = here("verify", tiny_bundle_dir, "--baseline", baseline, "--suite", suite, "--no-store")
    assert "expected the same original" in used.one_error()
    checked = here("baseline", "check", baseline, "--bundle", tiny_bundle_dir)
    assert "expected the same original" in checked.one_error()


@pytest.mark.skipif(not fallback.is_available(), reason="the extra optimum is not installed")
def test_bundles_of_the_fallback_exporter(suite: Path, tmp_path: Path) -> None:
    """Slower, one sequence at a time, but the same command."""
    import torch
    import transformers
    from exporting import export
    from runtime_support import make_tokenizer

    config = transformers.GPTNeoXConfig(
        vocab_size=320, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=96, eos_token_id=2, bos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "hf")
    # A random model ends by chance: half of the tokens end a reply.
    (tmp_path / "hf" / "generation_config.json").write_text(json.dumps({"eos_token_id": list(range(2, 160))}))
    make_tokenizer().save(str(tmp_path / "hf" / "tokenizer.json"))
    (tmp_path / "hf" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    made = {}
    for name, weight_format in (("whole", "fp32"), ("small", "int8")):
        made[name] = tmp_path / name
        export(
            tmp_path / "hf", made[name], exporter="optimum", format=weight_format, context=96,
            check=False,
        )  # fmt: skip
    options = ("--suite", suite, *SMALL)
    done = here("verify", made["small"], "--reference", made["whole"], *options, "--json")
    assert done.code in (0, 1, 3), done.err
    report = done.report
    assert report["sampler"]["reproduces"]
    assert report["tokens"]["forced"]["kl"]["value"] > 0
