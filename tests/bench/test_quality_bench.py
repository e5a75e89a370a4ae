"""The benchmark next to llama.cpp: the dithered original, what counts as beaten, both engines in float32."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from exporting import export

from edgedistill.catalog.builtin import resolve

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture(scope="module", autouse=True)
def _bench_modules() -> Iterator[None]:
    sys.path.insert(0, str(BENCH))
    yield
    sys.path.remove(str(BENCH))


def _write(path: Path, values: np.ndarray[Any, Any]) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b"])
    packed = gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("blk.0.ffn_up.weight", packed, raw_dtype=gguf.GGMLQuantizationType.Q4_0)
    writer.add_tensor("output_norm.weight", np.ones(64, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_dither_moves_quantized_tensors_off_the_grid_by_half_a_step_at_most(tmp_path: Path) -> None:
    from dither import dithered_gguf

    values = np.random.default_rng(5).standard_normal((8, 64)).astype(np.float32)
    _write(tmp_path / "q4.gguf", values)
    grid = gguf.quants.dequantize(
        gguf.quants.quantize(values, gguf.GGMLQuantizationType.Q4_0), gguf.GGMLQuantizationType.Q4_0
    )
    first = dithered_gguf(tmp_path / "q4.gguf", tmp_path / "a.gguf")
    again = dithered_gguf(tmp_path / "q4.gguf", tmp_path / "b.gguf")
    other = dithered_gguf(tmp_path / "q4.gguf", tmp_path / "c.gguf", seed=1)
    assert first.read_bytes() == again.read_bytes() != other.read_bytes()

    reader = gguf.GGUFReader(str(first))
    found = {tensor.name: tensor for tensor in reader.tensors}
    moved = np.asarray(found["blk.0.ffn_up.weight"].data) - grid
    step = np.abs(values).reshape(-1, 32).max(axis=1, keepdims=True) / 8  # of Q4_0: the block's extreme is -8 steps
    relative = np.abs(moved.reshape(-1, 32)) / step
    assert relative.max() <= 0.51
    assert relative.mean() > 0.2  # uniform on half a step: a quarter
    assert np.array_equal(found["output_norm.weight"].data, np.ones(64, np.float32))
    assert reader.fields["tokenizer.ggml.tokens"].contents() == ["a", "b"]
    assert not list(tmp_path.glob("*.partial"))


def _point(name: str, engine: str, size: int, kl: float, kl_decode: float | None = None) -> Any:
    from quality_points import Point

    decode = kl if kl_decode is None else kl_decode
    return Point(name, engine, size, size, 4.5, 100, kl, kl, kl, 10 * kl, 0.9, 10, decode, kl, 1)


def test_the_plot_has_memory_beside_size(tmp_path: Path) -> None:
    from quality_points import OURS, PEER, lowest, plot, table

    known = [
        dataclasses.replace(_point("int4", OURS, 90_000_000, 0.08), private_bytes=150_000_000),
        dataclasses.replace(_point("int5", OURS, 104_000_000, 0.03), private_bytes=210_000_000),
        dataclasses.replace(_point("int8", OURS, 139_000_000, 0.01), private_bytes=190_000_000),
        _point("Q4_K_M", PEER, 105_000_000, 0.12),
    ]
    assert [row.split("|")[-2].strip() for row in table(known)] == ["private MB", "---:", "150", "210", "", "190"]
    by_memory = sorted(known[:3], key=lambda point: point.private_bytes)
    assert lowest([(p.private_bytes, p) for p in by_memory]) == [(150_000_000, 0.08), (190_000_000, 0.01)]
    assert plot(known, "title", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_verdict_takes_the_best_of_ours_that_is_no_larger() -> None:
    from quality_points import OURS, PEER, conclusion, verdicts

    points = [
        _point("small", OURS, 90, 0.08),
        _point("worse", OURS, 95, 0.5),
        _point("large", OURS, 141, 0.001),
        _point("F32", PEER, 540, 0.0),
        _point("Q8_0", PEER, 140, 0.006),
        _point("Q4_0", PEER, 90, 0.4),
        _point("Q2", PEER, 89, 0.9),
    ]
    found = {verdict.peer.name: verdict for verdict in verdicts(points, decode=False)}
    assert list(found) == ["Q2", "Q4_0", "Q8_0"]
    assert found["Q4_0"].below
    assert found["Q4_0"].best is points[0]
    assert not found["Q2"].below
    assert "every one of ours is larger" in found["Q2"].line()
    assert not found["Q8_0"].below  # the larger one that is better does not count
    assert "Q8_0 (0.0 MB, KL 0.0060) stays above" in found["Q8_0"].line()
    assert conclusion(list(found.values())).endswith("not beaten at their size: Q2, Q8_0")


def test_verdict_of_decode_is_its_own_and_a_tie_is_not_a_win() -> None:
    from quality_points import OURS, PEER, conclusion, verdicts

    points = [_point("ours", OURS, 90, 0.01, 0.2), _point("theirs", PEER, 90, 0.1, 0.2)]
    prefill, decode = verdicts(points, decode=False), verdicts(points, decode=True)
    assert prefill[0].below
    assert "whole curve" in conclusion(prefill)
    assert not decode[0].below
    assert conclusion(decode).startswith("decode: 1 of 1")


def test_gguf_of_the_built_in_model_holds_its_weights(tmp_path: Path) -> None:
    from quality_gguf import qwen3_gguf, tensor_bytes
    from safetensors.numpy import load_file

    directory = resolve("tiny-reasoner")
    assert directory is not None
    path = qwen3_gguf(directory, tmp_path / "tiny.gguf")
    tensors = load_file(directory / "model.safetensors")
    found = {tensor.name: np.asarray(tensor.data) for tensor in gguf.GGUFReader(str(path)).tensors}
    assert np.array_equal(found["blk.1.attn_q.weight"], tensors["model.layers.1.self_attn.q_proj.weight"])
    assert np.array_equal(found["token_embd.weight"], tensors["model.embed_tokens.weight"])
    assert tensor_bytes(path) == sum(4 * values.size for values in tensors.values())


def test_every_kind_of_text_is_judged_apart_and_decoded_in_part(tmp_path: Path) -> None:
    from quality_measure import CHUNK, Task, measure, whole
    from quality_points import OURS, Point, table_by_kind

    from edgedistill.comparison.quality import store
    from edgedistill.progress import NullProgress
    from edgedistill.runtime.model import open_bundle
    from edgedistill.runtime.session import DecoderSession

    export("tiny-reasoner", tmp_path / "fp32", profile="reference-fp32", check=False)
    export("tiny-reasoner", tmp_path / "int4", format="int4-b32", check=False)
    sequences = (tuple(range(40, 70)), tuple(range(100, 112)), tuple(range(70, 90)))
    kinds = ("prose", "code", "prose")
    with open_bundle(tmp_path / "fp32") as model:
        assert isinstance(model.session, DecoderSession)
        store(tmp_path / "logits", model.session, whole(sequences, 99), chunk=CHUNK, progress=NullProgress())
    same = measure(Task(OURS, tmp_path / "fp32", tmp_path / "logits", 768, sequences, kinds, 30, 1))
    assert max(same["kl"], same["kl_decode"], *same["kl_by_kind"].values()) < 1e-6  # rows of the right positions
    found = measure(Task(OURS, tmp_path / "int4", tmp_path / "logits", 768, sequences, kinds, 30, 1))
    assert found["positions"] == 29 + 11 + 19
    assert found["decode_positions"] == 15 + 6 + 10
    assert list(found["kl_by_kind"]) == ["prose", "code"]
    assert 48 * found["kl_by_kind"]["prose"] + 11 * found["kl_by_kind"]["code"] == pytest.approx(59 * found["kl"])
    lines = table_by_kind([Point("int4", OURS, 2_000_000, 2_000_000, 4.5, **found)])
    assert lines[0] == "| engine | format | file MB | prose | code |"
    assert f"{found['kl_by_kind']['code']:.4f}" in lines[2]


def test_held_out_text_has_every_kind(tiny_bundle_dir: Path) -> None:
    from held_out import IN_DOMAIN, KINDS, held_out

    from edgedistill.runtime.model import open_bundle

    with open_bundle(tiny_bundle_dir) as model:
        found = held_out(model, 120)
        assert list(found) == [*KINDS, IN_DOMAIN]
        longest = model.bundle.manifest.model.context_length
    for kind, sequences in found.items():
        assert 60 <= sum(map(len, sequences)) <= 140, kind
        assert all(2 <= len(ids) <= longest for ids in sequences)


def test_both_engines_agree_in_float32_on_both_paths(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", exc_type=ImportError)
    from quality_gguf import qwen3_gguf
    from quality_measure import CHUNK, Task, measure, whole

    from edgedistill.comparison.quality import store
    from edgedistill.progress import NullProgress
    from edgedistill.runtime.model import open_bundle
    from edgedistill.runtime.session import DecoderSession

    directory = resolve("tiny-reasoner")
    assert directory is not None
    export("tiny-reasoner", tmp_path / "fp32", profile="reference-fp32", check=False)
    sequences = (tuple(range(40, 70)), tuple(range(100, 112)))
    with open_bundle(tmp_path / "fp32") as model:
        assert isinstance(model.session, DecoderSession)
        store(tmp_path / "logits", model.session, whole(sequences, 99), chunk=CHUNK, progress=NullProgress())
    path = qwen3_gguf(directory, tmp_path / "tiny.gguf")
    found = measure(Task("llama.cpp", path, tmp_path / "logits", 768, sequences, ("prose", "code"), 35, 1))
    assert found["positions"] == 40
    assert found["decode_positions"] == 35
    assert found["top1"] == 1.0
    assert max(found["kl"], found["kl_decode"]) < 1e-6
