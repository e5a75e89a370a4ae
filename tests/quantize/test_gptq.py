"""GPTQ and its refits against direct solutions on small layers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.errors import CheckpointError
from edgedistill.quantize import dequantize_rows, quantize_rows
from edgedistill.quantize.gptq import QUICK, GptqOptions, Moments, Solver, _inverse_of_upper
from edgedistill.quantize.spec import WeightFormat, array_specs
from edgedistill.quantize.storage import load_codes, load_scales, load_zero_points

FMT = WeightFormat(4, 16, False, "gptq")


def inputs(rng, tokens, k, spread=0.7):
    mix = rng.standard_normal((k, k)) / np.sqrt(k) * np.exp(rng.normal(0, spread, k))
    return (rng.standard_normal((tokens, k)) @ mix).astype(np.float32)


def moments(x, y=None):
    y = x if y is None else y
    return Moments(y.T @ y / len(y), None if y is x else (x - y).T @ y / len(y), len(y))


def output_error(x, rows, restored):
    return float(((x @ (rows - restored).T) ** 2).sum(1).mean())


def restored_by(solver, rows, fmt=FMT):
    return dequantize_rows(quantize_rows(rows, fmt, solver=solver), fmt, rows.shape[1])


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize(
    "fmt",
    [
        WeightFormat(bits, block, symmetric, "gptq", scale_bits=scales)
        for bits, block, symmetric, scales in itertools.product((2, 4, 5), (16, 32), (True, False), (8, 16))
    ],
    ids=WeightFormat.label,
)
def test_the_output_is_nearer_than_with_searched_scales(fmt, act_order) -> None:
    rng = np.random.default_rng(1)
    x, rows = inputs(rng, 2000, 100), rng.standard_normal((24, 100)).astype(np.float32)
    solver = Solver(moments(x), GptqOptions(act_order=act_order))
    arrays = quantize_rows(rows, fmt, solver=solver)
    specs = array_specs("w", rows.shape, fmt)
    assert {f"w.{name}": (str(a.dtype), a.shape) for name, a in arrays.items()} == {
        spec.name: (spec.dtype, spec.shape) for spec in specs
    }
    searched = output_error(x, rows, restored_by(None, rows, fmt))
    solved = output_error(x, rows, dequantize_rows(arrays, fmt, 100))
    assert solved < 0.7 * searched
    assert solver.error(rows, dequantize_rows(arrays, fmt, 100)) == pytest.approx(
        solved, rel=0.5
    )  # damping counts, too


def test_columns_are_rounded_as_the_sequential_definition_says() -> None:
    """The published algorithm, column by column with an explicit inverse, gives the same codes."""
    rng = np.random.default_rng(2)
    x, rows = inputs(rng, 500, 48), rng.standard_normal((3, 48)).astype(np.float32)
    solver = Solver(moments(x), GptqOptions(sweeps=0, act_order=False))
    arrays = quantize_rows(rows, FMT, solver=solver)
    scales, zeros = load_scales(arrays), load_zero_points(arrays, FMT, 3)
    hessian = x.T.astype(np.float64) @ x / len(x)
    hessian += np.eye(48) * 0.01 * np.diag(hessian).mean()
    work = rows.astype(np.float64).copy()
    expected = np.empty((3, 48))
    left = list(range(48))
    for j in range(48):
        inverse = np.linalg.inv(hessian[np.ix_(left, left)])
        scale, zero = scales[:, j // 16], zeros[:, j // 16].astype(np.float64)
        code = np.clip(np.rint(work[:, j] / scale), -zero, 15 - zero)
        expected[:, j] = code + zero
        error = (work[:, j] - code * scale) / inverse[0, 0]
        work[:, left] -= error[:, None] * inverse[0][None, :]
        left.pop(0)
    same = load_codes(arrays, FMT).reshape(3, -1)[:, :48] == expected
    assert same.mean() > 0.98  # single and double precision differ where a value lies between two codes


def test_small_layers_come_near_the_best_of_all_codes() -> None:
    """Against every combination of codes: four inputs, two bits."""
    rng = np.random.default_rng(3)
    fmt = WeightFormat(2, 16, False, "gptq")
    ratios = []
    for _ in range(20):
        x, rows = inputs(rng, 200, 4), rng.standard_normal((1, 4)).astype(np.float32)
        arrays = quantize_rows(rows, fmt, solver=Solver(moments(x), GptqOptions(act_order=True)))
        scale, zero = load_scales(arrays)[0, 0], float(load_zero_points(arrays, fmt, 1)[0, 0])
        every = (np.array(list(itertools.product(range(4), repeat=4))) - zero) * scale
        best = min(output_error(x, rows, one[None].astype(np.float32)) for one in every)
        ratios.append(output_error(x, rows, dequantize_rows(arrays, fmt, 4)) / best)
    assert np.median(ratios) < 1.05
    assert np.mean(ratios) < 1.5


def test_scales_solve_the_normal_equations() -> None:
    """For the codes that came out, no other scales do better than rounding to float16 explains."""
    rng = np.random.default_rng(4)
    x, rows = inputs(rng, 1000, 64), rng.standard_normal((5, 64)).astype(np.float32)
    options = GptqOptions(sweeps=1)
    arrays = quantize_rows(rows, FMT, solver=Solver(moments(x), options))
    got = output_error(x, rows, dequantize_rows(arrays, FMT, 64))
    codes = load_codes(arrays, FMT).astype(np.float64) - load_zero_points(arrays, FMT, 4)[..., None]
    total = 0.0
    for row in range(5):
        features = np.stack([x[:, b * 16 : b * 16 + 16] @ codes[row, b] for b in range(4)], axis=1)
        target = x @ rows[row]
        best, *_ = np.linalg.lstsq(features, target, rcond=None)
        total += float(((features @ best - target) ** 2).mean())
    # One sweep of codes followed the scales: they are near their optimum, not at it.
    assert got < 1.1 * total


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(5, 80), st.booleans())
@settings(max_examples=40, deadline=None)
def test_more_sweeps_do_not_hurt(seed, n, k, act_order) -> None:
    rng = np.random.default_rng(seed)
    x, rows = inputs(rng, 300, k), rng.standard_normal((n, k)).astype(np.float32)
    fmt = WeightFormat(4, 16, False, "gptq", scale_bits=32)
    errors = []
    for sweeps in (0, 1, 4):
        solver = Solver(moments(x), GptqOptions(sweeps=sweeps, act_order=act_order))
        errors.append(solver.error(rows, restored_by(solver, rows, fmt)))
    assert errors[1] <= errors[0] * 1.001 + 1e-9
    assert errors[2] <= errors[1] * 1.001 + 1e-9


def test_a_shifted_input_is_made_up_for() -> None:
    """Asymmetric calibration: what matters is W x for the original inputs, computed from the shifted ones."""
    rng = np.random.default_rng(5)
    x, rows = inputs(rng, 3000, 64), rng.standard_normal((16, 64)).astype(np.float32)
    y = (x @ (np.eye(64) + 0.05 * rng.standard_normal((64, 64)))).astype(np.float32)
    y += 0.05 * rng.standard_normal(y.shape).astype(np.float32)

    def error(shift):
        restored = restored_by(Solver(moments(x, y), GptqOptions(shift=shift)), rows)
        return float(((x @ rows.T - y @ restored.T) ** 2).mean())

    assert error(1.0) < 0.5 * error(0.0)


def test_slices_of_rows_do_not_change_the_result() -> None:
    rng = np.random.default_rng(6)
    x, rows = inputs(rng, 500, 96), rng.standard_normal((20, 96)).astype(np.float32)
    solver = Solver(moments(x))
    whole = quantize_rows(rows, FMT, solver=solver)
    parts = [quantize_rows(rows[i : i + 10], FMT, solver=solver) for i in (0, 10)]
    same = np.concatenate([load_codes(part, FMT) for part in parts]) == load_codes(whole, FMT)
    assert same.mean() > 0.999  # BLAS sums in another order


@pytest.mark.parametrize(
    "bad", [np.zeros((32, 32)), np.full((32, 32), np.nan), -np.eye(32), np.diag([-1.0] + [1.0] * 31)]
)
def test_moments_that_cannot_be_factored_fall_back_to_search(bad) -> None:
    solver = Solver(Moments(bad, None, 10))
    rows = np.random.default_rng(7).standard_normal((4, 32)).astype(np.float32)
    if solver.failed is None:  # enough damping made it definite
        assert solver.damping > GptqOptions().damping
    arrays = quantize_rows(rows, FMT, solver=solver)
    restored = dequantize_rows(arrays, FMT, 32)
    assert np.abs(restored - rows).max() < 1
    if solver.failed:
        with pytest.raises(ValueError, match="cannot solve"):
            solver.quantize(rows, FMT)


def test_dead_inputs_zero_rows_and_padding_are_fine() -> None:
    rng = np.random.default_rng(8)
    x = inputs(rng, 300, 40)
    x[:, 3] = 0
    rows = rng.standard_normal((6, 40)).astype(np.float32)
    rows[2], rows[:, 16:32] = 0, 0
    restored = restored_by(Solver(moments(x)), rows)
    assert np.isfinite(restored).all()
    assert not restored[2].any()


def test_values_that_are_not_finite_are_refused() -> None:
    rows = np.ones((2, 32), np.float32)
    rows[1, 3] = np.nan
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        quantize_rows(rows, FMT, solver=Solver(Moments(np.eye(32), None, 10)))


@pytest.mark.parametrize("act_order", [False, True])
def test_groups_are_solved_each_by_its_own_moments(act_order: bool) -> None:
    rng = np.random.default_rng(5)
    x, rows = inputs(rng, 800, 512), rng.standard_normal((6, 512)).astype(np.float32)
    options = GptqOptions(sweeps=0, act_order=act_order)
    grouped = restored_by(Solver(moments(x), replace(options, group=300)), rows)
    # Damping is relative to the mean of all columns, so a group alone is solved with its own.
    second = moments(x).second
    mean = np.diag(second).mean()
    for cut in (slice(0, 256), slice(256, 512)):
        own = replace(options, damping=options.damping * mean / np.diag(second)[cut].mean())
        alone = Solver(Moments(second[cut, cut], None, len(x)), own)
        np.testing.assert_allclose(grouped[:, cut], restored_by(alone, rows[:, cut]), rtol=1e-5, atol=1e-6)


def test_shrinking_to_the_diagonal_gains_on_text_that_was_not_seen() -> None:
    rng = np.random.default_rng(6)
    x, rows = inputs(rng, 4000, 128), rng.standard_normal((24, 128)).astype(np.float32)
    few, rest = x[:96], x[96:]  # fewer tokens than columns: pairs of inputs are mostly noise

    def unseen(shrink: float) -> float:
        solver = Solver(moments(few), GptqOptions(sweeps=0, shrink=shrink))
        return output_error(rest, rows, restored_by(solver, rows))

    assert unseen(QUICK.shrink) < unseen(0.0)
    assert unseen(QUICK.shrink) < unseen(1.0)


@pytest.mark.parametrize("size", [1, 128, 129, 300])
def test_the_inverse_of_a_triangle(size: int) -> None:
    rng = np.random.default_rng(size)
    upper = np.triu(rng.standard_normal((size, size))) + 30 * np.eye(size)
    found = _inverse_of_upper(upper)
    np.testing.assert_allclose(found @ upper, np.eye(size), atol=1e-10)
    assert np.array_equal(found, np.triu(found))
