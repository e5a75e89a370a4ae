"""bench/peers.py on a tiny bundle: an engine that fails is left out, the others are measured; GGUFs of shards."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parents[2] / "bench"


def test_an_engine_that_fails_is_left_out(
    tiny_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from peers import LLAMA, OURS, OURS_DEFAULT, measure, tables

    models = {LLAMA: tiny_bundle_dir / "no.gguf", OURS: tiny_bundle_dir, OURS_DEFAULT: tiny_bundle_dir}
    args = Namespace(rounds=1, threads=1, new_tokens=2, contexts=(8,), batches=(2,), preload=None, processor_time=True)
    rounds = measure(models, Path(sys.executable), args)
    assert sorted(rounds[0]) == [OURS, OURS_DEFAULT]
    assert rounds[0][OURS]["decode"]["8"] > 0
    assert "llama.cpp failed" in capsys.readouterr().err
    page = tables("tiny", rounds, models, 10.0)
    rows = page.splitlines()[4:6]
    assert [row.split(" | ")[0].endswith(", default") for row in rows] == [False, True]
    size = sum((tiny_bundle_dir / name).stat().st_size for name in ("model.onnx", "weights.bin"))
    assert f"| {size / 1e6:.0f} |" in rows[0]
    assert "by batch size" in page
    assert "Roofline: 10.0 GB/s" in page


def test_ratios_of_the_w8a8_bundle_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from peers import OPENVINO, OURS, OURS_W8A8, tables

    def turn(rate: float) -> dict[str, object]:
        one = {"version": "an engine 1.0", "prefill": {"64": rate}, "decode": {"64": 10.0}, "batch": {}}
        return one | {"load": 1.0, "private": 1e6, "peak": 2e6}

    models = dict.fromkeys((OURS, OURS_W8A8, OPENVINO), Path(__file__))
    page = tables("a model", [{OURS: turn(90.0), OURS_W8A8: turn(120.0), OPENVINO: turn(100.0)}], models, None)
    ratios = page.partition("ratio within a round")[2].splitlines()[2:]
    assert ratios[0].startswith("| edgedistill / OpenVINO | 0.90 (0.90 to 0.90) |")
    assert ratios[1].startswith("| edgedistill, w8a8 / OpenVINO | 1.20 (1.20 to 1.20) |")


def test_a_sharded_checkpoint_as_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", exc_type=ImportError)
    monkeypatch.syspath_prepend(str(BENCH))
    import gguf
    from make_checkpoint import SHAPES, make_checkpoint, tensor_shapes
    from quality_gguf import qwen3_gguf

    shape = SHAPES["qwen3-tiny"]
    make_checkpoint(tmp_path / "tiny", shape, shard_bytes=100_000)
    shards = sorted((tmp_path / "tiny").glob("*.safetensors"))
    assert len(shards) > 1
    found = {t.name: t for t in gguf.GGUFReader(qwen3_gguf(tmp_path / "tiny", tmp_path / "tiny.gguf")).tensors}
    assert len(found) == len(tensor_shapes(shape))
    assert found["output_norm.weight"].tensor_type == gguf.GGMLQuantizationType.F32
    embedding = found["token_embd.weight"]
    assert embedding.tensor_type == gguf.GGMLQuantizationType.BF16
    stored = shards[0].read_bytes()
    begin = 8 + int.from_bytes(stored[:8], "little")  # the embedding is the first tensor
    size = 2 * shape["vocab_size"] * shape["hidden_size"]
    assert np.asarray(embedding.data).tobytes() == stored[begin : begin + size]
