"""The random checkpoints of the benchmarks: the shape they claim, readable like real ones, the same for a seed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgedistill.checkpoint.open import open_checkpoint

SCRIPT = Path(__file__).parents[2] / "bench" / "make_checkpoint.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_checkpoint", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shards_of_the_shape(bench: ModuleType, tmp_path: Path) -> None:
    from edgedistill.architecture.families import build_spec, check_tensors

    config = bench.SHAPES["qwen3-tiny"]
    total = bench.make_checkpoint(tmp_path / "a", config, seed=3, shard_bytes=40_000)
    bench.make_checkpoint(tmp_path / "b", config, seed=3)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert sum(name.endswith(".safetensors") for name in files) > 3
    assert all((tmp_path / "a" / name).stat().st_size < 70_000 for name in files if name.endswith(".safetensors"))
    with open_checkpoint(str(tmp_path / "a")) as one, open_checkpoint(str(tmp_path / "b")) as other:
        check_tensors(build_spec(one.config), one.tensors)
        sizes = 0
        values = []
        for name in one.tensors.names():
            rows = one.tensors.info(name).shape[0]
            read = one.tensors.read_rows(name, 0, rows)
            sizes += 2 * read.size
            np.testing.assert_array_equal(read, other.tensors.read_rows(name, 0, rows))
            if "norm" in name:
                assert (read == 1).all()
            else:
                values.append(read.ravel())
        assert sizes == total
        assert np.concatenate(values).std() == pytest.approx(0.02, rel=0.02)
        # Equal rows would let a compressing file system or a cache flatter the measurement.
        embedding = one.tensors.read_rows("model.embed_tokens.weight", 0, 512)
        assert len(np.unique(embedding, axis=0)) == 512


@pytest.mark.parametrize(("shape", "billions"), [("qwen3-0.6b", 0.596), ("qwen3-4b", 4.02), ("qwen3-8b", 8.19)])
def test_parameters_of_the_real_models(bench: ModuleType, shape: str, billions: float) -> None:
    shapes = bench.tensor_shapes(bench.SHAPES[shape])
    assert sum(int(np.prod(sizes)) for sizes in shapes.values()) / 1e9 == pytest.approx(billions, rel=0.01)


def test_command_line(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "--shape", "qwen3-tiny", "--out", str(tmp_path / "m")])
    assert bench.main() == 0
    assert "random bf16 weights" in capsys.readouterr().out
    assert bench.main() == 2
    assert "exists already" in capsys.readouterr().err
