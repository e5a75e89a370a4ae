"""Predicted sizes are those of the bundles that are then made; timings are kept; every format can be timed."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from exporting import export

from edgedistill import plan
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import UsageError
from edgedistill.estimate.speed import LayerCase, MatrixCase, StepModel
from edgedistill.estimate.timings import Machine, Timings, path_of
from edgedistill.export.plan import make_plan
from edgedistill.planning import kernels, layers, measure
from edgedistill.planning.measure import measure_missing
from edgedistill.planning.options import read_formats
from edgedistill.profile.profile import load_profile
from edgedistill.progress import NullProgress
from edgedistill.quantize.plan import parse_format


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kernels, "SECONDS", 0.0)
    monkeypatch.setattr(kernels, "REPEATS", 1)
    for module in (kernels, layers):  # it looks through all memory of the tests' process before each layer
        monkeypatch.setattr(module, "use_huge_pages", lambda: None)
    monkeypatch.setattr(measure, "memory_bandwidth", lambda *_: 10.0)


@pytest.mark.parametrize("text", ["fp32", "w8a8", "int8", "int4-b128-sym", "int6-b32", "int4-b16-s8", "profile"])
def test_sizes_are_those_of_the_bundle(text: str, tmp_path: Path) -> None:
    weight_format = None if text == "profile" else text
    (row,) = plan("tiny-reasoner", format=weight_format, measure=False).rows
    made = export("tiny-reasoner", tmp_path / "b", format=weight_format, check=False)
    size = sum(entry.size for entry in made.manifest.files)
    assert row.file_bytes == pytest.approx(size, rel=0.02)
    assert row.bits_per_weight == pytest.approx(made.manifest.bits_per_weight)
    assert row.kv_bytes_per_token == made.manifest.kv_cache.bytes_per_token
    assert row.speed is None


def test_a_quantized_cache_is_counted(tmp_path: Path) -> None:
    (wide,) = plan("tiny-reasoner", measure=False).rows
    (row,) = plan("tiny-reasoner", kv_cache="int8", measure=False).rows
    assert 4 * row.kv_bytes_per_token == wide.kv_bytes_per_token
    made = export("tiny-reasoner", tmp_path / "b", kv_cache="int8", check=False)
    assert row.file_bytes == pytest.approx(sum(entry.size for entry in made.manifest.files), rel=0.02)


def test_speeds_are_measured_once_and_then_known(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    assert plan(tiny_checkpoint_dir, measure=False).machine is None
    report = plan(tiny_checkpoint_dir, context=(100, 500))
    (row,) = report.rows
    assert report.machine is not None
    assert row.speed is not None
    assert set(row.speed.decode_tps) == {64, 100, 500}
    assert all(
        rate > 0 and math.isfinite(rate) for rate in (*row.speed.decode_tps.values(), *row.speed.prefill_tps.values())
    )
    assert row.speed.decode_tps[500] <= row.speed.decode_tps[100]
    (again,) = plan(tiny_checkpoint_dir, context=(100, 500), measure=False).rows
    assert again.speed == row.speed
    # An export then knows them too, and measures nothing by itself.
    made = export(tiny_checkpoint_dir, tmp_path / "b", context=500, check=False)
    assert made.manifest.predicted["speed"]["decode_tps"]["500"] == row.speed.decode_tps[500]
    other = export(tiny_checkpoint_dir, tmp_path / "c", format="int8-b16", check=False)
    assert "speed" not in other.manifest.predicted


def test_damaged_timings_are_measured_again(tiny_checkpoint_dir: Path) -> None:
    machine = Machine.here()
    plan(tiny_checkpoint_dir)
    path = path_of(machine)
    kept = json.loads(path.read_text())
    kept["seconds"] = dict.fromkeys(kept["seconds"], -1.0)
    for text in ("{", "[]", json.dumps(kept)):
        path.write_text(text)
        assert Timings.load(machine).seconds == {}
    assert plan(tiny_checkpoint_dir).rows[0].speed is not None


@pytest.mark.parametrize("text", ["fp32", "w8a8", "int2", "int3-b64", "int4-b32-s8", "int5", "int8-b32-sym-acc1"])
def test_any_format_can_be_timed(text: str) -> None:
    for tokens in (1, 4):
        case = MatrixCase(parse_format(text), 128, 192, tokens, 1 << 20)
        assert 0 < kernels.time_matrix(case, _config()) < 1


@pytest.mark.parametrize("cache", ["float32", "int8", "int4"])
def test_a_layer_with_any_cache_can_be_timed(tiny_checkpoint_dir: Path, cache: str) -> None:
    profile = load_profile("laptop-cpu").with_overrides(kv_cache=cache, context_length=256)
    with open_checkpoint(str(tiny_checkpoint_dir)) as checkpoint:
        made = make_plan(checkpoint, profile)
    model = StepModel(made.spec, made.planned, profile)
    timings = Timings(Machine.here())
    assert measure_missing([model], timings, NullProgress()) == len({case.key for case in model.cases()})
    assert measure_missing([model], timings, NullProgress()) == 0
    assert any(isinstance(case, LayerCase) for case in model.cases())
    assert model.speed(timings.seconds, contexts=(10,), prompts=(20,)) is not None


def test_no_two_matrices_that_are_timed_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime keeps equal packed weights once, which a processor's cache would then hold."""
    seen: list[bytes] = []

    def opened(path: Path, *_: object, **__: object) -> None:
        seen.append((path.parent / "weights.bin").read_bytes())
        raise InterruptedError

    monkeypatch.setattr(kernels, "open_session", opened)
    fmt = parse_format("fp32")
    with pytest.raises(InterruptedError):
        kernels.time_matrix(MatrixCase(fmt, 64, 64, 1, 8 * 64 * 64 * 4), _config())
    copies = [seen[0][start : start + 64 * 64 * 4] for start in range(0, 8 * 64 * 64 * 4, 64 * 64 * 4)]
    assert [len(copy) for copy in copies] == [64 * 64 * 4] * 8
    assert len(set(copies)) == 8


def test_a_prediction_is_the_sum_of_its_parts(tiny_checkpoint_dir: Path) -> None:
    profile = load_profile("laptop-cpu").with_overrides(context_length=512)
    with open_checkpoint(str(tiny_checkpoint_dir)) as checkpoint:
        made = make_plan(checkpoint, profile)
    model = StepModel(made.spec, made.planned, profile)
    seconds = {case.key: 1e-3 for case in model.cases()}
    matrices = len(model.matrices)
    layers = made.spec.num_hidden_layers
    found = model.speed(seconds, contexts=(100,), prompts=(256, 512))
    assert found is not None
    assert 1 / found.decode_tps[100] == pytest.approx(1e-4 + 1e-3 * (matrices + layers))
    assert 256 / found.prefill_tps[256] == pytest.approx(1e-4 + 1e-3 * (matrices + layers))
    assert 512 / found.prefill_tps[512] == pytest.approx(2e-4 + 1e-3 * (2 * (matrices - 1 + layers) + 1))


def test_a_bound_is_stated_where_the_profile_states_a_bandwidth() -> None:
    profile = load_profile("laptop-cpu")
    target = dataclasses.replace(profile.target, memory_bandwidth_gbs=20.0)
    (row,) = plan("tiny-reasoner", profile=dataclasses.replace(profile, target=target), measure=False).rows
    assert row.ceiling_tps is not None
    assert 20e9 / 9.4e6 < row.ceiling_tps < 20e9 / 1.2e6


def test_a_misspelt_format_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean int4-b32-gptq"):
        read_formats("int8,imt4-b32-gptq")
    with pytest.raises(UsageError, match="Did you mean int8-b64"):
        read_formats("int8-b63")
    with pytest.raises(UsageError, match="empty"):
        read_formats(" , ")
    assert [name for name, _ in read_formats("int4, int8,int4")] == ["int4", "int8"]


def _config():
    from edgedistill.runtime.session import SessionConfig

    return SessionConfig(threads=1)
