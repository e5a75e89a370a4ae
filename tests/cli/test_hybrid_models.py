"""A model with recurrent layers through the commands: export with calibration, run, chat, verify, serve."""

from __future__ import annotations

import hashlib
import json
import urllib.request
from typing import TYPE_CHECKING

import numpy as np
import pytest
from api_server import serving
from cli_support import here
from exporting import export
from hybrid_checkpoints import WRITERS
from shared import made_once

from edgedistill.bundle.bundle import MODEL, Bundle
from edgedistill.export.calibrate import sliced_run
from edgedistill.runtime.model import open_bundle
from edgedistill.traces.traces import Traces
from edgedistill.tune.arrays import StoredArrays

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def exported(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calibrated, as an export is that is left to itself; tried once, not verified."""

    def make(out: Path) -> Path:
        done = here("export", source, "-o", out, "--context", 256, "--no-verify", "--json")
        assert done.code == 0, done.err
        return out

    return made_once(tmp_path_factory, f"bundles/{source.name}-calibrated", make)


def test_the_bundle_says_what_it_is(exported: Path) -> None:
    manifest = Bundle.open(exported).manifest
    assert manifest.calibration["failed"] == {}
    quantized = {weight.name for weight in manifest.weights if not weight.format.is_float}
    if manifest.model.family == "lfm2":
        assert {"layers.0.conv.in", "layers.0.conv.out", "layers.1.attn.qkv"} <= quantized
    elif manifest.model.family == "granitemoehybrid":
        assert {"layers.0.mamba.in", "layers.0.mamba.out", "layers.1.attn.qkv"} <= quantized
    else:
        assert {"layers.0.delta.in", "layers.0.delta.out", "layers.3.attn.output_gate"} <= quantized
    assert not any(name.endswith(("kernel", "gates")) for name in quantized)
    assert here("inspect", exported).code == 0


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_calibration_lowers_the_damage(name: str, tmp_path: Path) -> None:
    """The inputs that their matrices are calibrated on are those that they have in the whole graph."""
    source = WRITERS[name](tmp_path / "hf", hidden_size=128, intermediate_size=160)
    rng = np.random.default_rng(0)
    sequences = tuple(rng.integers(3, 300, 48) for _ in range(24))
    digest = hashlib.sha256((source / "tokenizer.json").read_bytes()).hexdigest()
    traces = Traces(sequences, (0,) * len(sequences), digest, "random tokens")
    found = {}
    few = "int4-b32-asym-acc1"
    for kind, weights, calibration in (("whole", "fp32", None), ("searched", few, None), ("solved", few, traces)):
        export(source, tmp_path / kind, format=weights, calibration=calibration, check=False)
        with open_bundle(tmp_path / kind) as model:
            parts = [part for ids in sequences for part in model.session.decoder().score(ids[None], chunk=64)]
            found[kind] = np.concatenate([part.logits for part in parts])
    searched, solved = (np.square(found[kind] - found["whole"]).mean() for kind in ("searched", "solved"))
    assert 0 < solved < 0.9 * searched


def test_tune_lowers_the_divergence(source: Path, exported: Path, tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "tuned"
    words = np.random.default_rng(0).choice(["Ann", "apples", "has", "3", "and", "buys", "four", "of", "the"], 900)
    text.write_text(" ".join(words))
    options = ("--steps", 12, "--batch-tokens", 512, "--length", 96, "--learning-rate", 0.01, "--norm-rate", 0.01)
    done = here("tune", exported, "--reference", source, "-o", out, "--calibration", text, *options, "--json").json
    assert done["after"]["kl"] < 0.95 * done["before"]["kl"]
    arrays = StoredArrays(exported / MODEL)
    changed = {n for n in arrays.places if arrays.read(exported, n).tobytes() != arrays.read(out, n).tobytes()}
    layer = f"layers.0.{next(part for part in ('conv', 'delta', 'mamba') if f'layers.0.{part}.out.q' in arrays)}"
    assert {f"{layer}.in.scales", f"{layer}.out.scales"} <= changed
    assert not any(name.endswith((".q", "kernel", ".gates")) for name in changed)
    assert here("run", out, "How many apples?", "-n", 4, "--json").json["stats"]["new_tokens"] == 4


def test_the_trial_in_slices_is_the_whole_graph(exported: Path) -> None:
    bundle = Bundle.open(exported)
    prompt = [5, 9, 30, 7, 11]
    tokens = sliced_run.decode(exported, bundle.manifest, prompt, 5, limit=1)
    with open_bundle(exported) as model:
        decoder, expected = model.session.decoder(), []
        logits = decoder.feed(prompt, exact=True)
        for _ in range(5):
            expected.append(int(logits.argmax()))
            logits = decoder.feed(expected[-1:])
    assert tokens == expected


def test_run_chat_and_layouts(exported: Path, tmp_path: Path) -> None:
    ran = here("run", exported, "How many apples?", "-n", 12, "--temperature", 0, "--json").json
    assert ran["stats"]["new_tokens"] == 12
    noted = here("run", exported, "How many apples?", "-n", 3, "--speculate", "auto")
    assert "cannot be taken back" in noted.err
    said = here("chat", exported, "--plain", "-n", 6, stdin="the there then three\n/regenerate\nand then\n")
    assert said.code == 0, said.err
    options = ("-n", 3, "--temperature", 0, "--prompt-cache", "--json")
    asked = [here("run", exported, "How many apples?", *options, home=tmp_path).json for _ in range(2)]
    assert asked[0]["tokens"] == asked[1]["tokens"]
    assert asked[1]["stats"]["cached_tokens"] > 0
    assert "recurrent" in here("layout", exported, "hub", "-o", tmp_path / "hub").one_error()
    assert not (tmp_path / "hub").exists()


def test_a_bundle_against_itself(exported: Path, suite: Path) -> None:
    """Batches that share prompts, forks of them, and scores of given tokens."""
    options = ("--suite", suite, "--fast", "--samples", 4, "--prompts", 8, "--no-store", "--json")
    report = here("verify", exported, "--reference", exported, *options).report
    assert report["sampler"]["reproduces"]
    assert report["pairs"]["length_ratio"]["value"] == 1.0
    assert report["tokens"]["forced"]["kl"]["value"] < 1e-6


def test_the_checkpoint_as_the_reference(source: Path, exported: Path, suite: Path) -> None:
    """transformers' caches of such models cannot be reordered: every sample computes its prompt."""
    transformers = pytest.importorskip("transformers")
    kind = json.loads((source / "config.json").read_text())["model_type"]
    if kind not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} does not know {kind}")
    options = ("--suite", suite, "--fast", "--samples", 2, "--prompts", 8, "--no-store", "--json")
    done = here("verify", exported, "--reference", f"hf:{source}", *options)
    if kind == "granitemoehybrid" and transformers.__version__.startswith("4."):
        assert "Install transformers 5" in done.one_error()
        return
    report = done.report
    assert report["settings"]["samples"] == 2
    assert 0 < report["tokens"]["forced"]["kl"]["value"] < 0.5


def test_served_answers_are_those_of_the_model(exported: Path) -> None:
    question = [{"role": "user", "content": "Ann has 3 apples and buys 4 more apples."}]
    with open_bundle(exported) as model, serving(model, numerics="exact") as server:
        expected = model.generate(question, temperature=0.0, max_new_tokens=20, numerics="exact").text
        body = {"model": "tiny", "messages": question, "temperature": 0, "max_tokens": 20}
        for _ in range(2):  # the second time from what the first left
            request = urllib.request.Request(
                f"{server.url}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as reply:
                answer = json.load(reply)
            assert answer["choices"][0]["message"]["content"].strip() == expected.strip()
        assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
