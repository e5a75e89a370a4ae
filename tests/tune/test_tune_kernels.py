"""The hand-written gradients against those that autograd finds for the plain formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.quantize import dequantize_rows, quantize_rows
from edgedistill.quantize.spec import WeightFormat
from edgedistill.tune import kernels
from edgedistill.tune.kernels import BlockMatrix
from edgedistill.tune.sources import Batches

N, K = 12, 40  # the last block of 32 is padded
FORMAT = WeightFormat(bits=4, block_size=32, symmetric=False, scale_bits=32)


def matrix(fmt: WeightFormat = FORMAT, n: int = N, k: int = K, seed: int = 0) -> BlockMatrix:
    rows = np.random.default_rng(seed).normal(size=(n, k)).astype(np.float32)
    return BlockMatrix(quantize_rows(rows, fmt), fmt, k, train_zero_points=True)


def moved(of: BlockMatrix, seed: int = 1) -> BlockMatrix:
    """The same with leaves away from 0: gradients must hold there, too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        of.log_factor.copy_(0.1 * torch.randn(of.log_factor.shape, generator=generator))
    return of


def plain(of: BlockMatrix, factor: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """The dequantized matrix [N, K] as a formula of its leaves; zero points move without being rounded."""
    zero = of.zero_points().float() + shift
    return ((of.codes.float() - zero[..., None]) * (of.base * torch.exp(factor))[..., None]).flatten(1)[:, : of.k]


def leaves(of: BlockMatrix) -> tuple[torch.Tensor, torch.Tensor]:
    return of.log_factor.detach().clone().requires_grad_(), torch.zeros_like(of.base, requires_grad=True)


def assert_same_gradients(of: BlockMatrix, expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert of.zero_shift is not None
    torch.testing.assert_close(of.log_factor.grad, expected[0].grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(of.zero_shift.grad, expected[1].grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rows", [slice(0, N), slice(3, 8)])
def test_linear_and_its_gradients(rows: slice) -> None:
    m = moved(matrix())
    x = torch.randn(2, 5, K, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    factor, shift = leaves(m)
    out = kernels.linear(x, m, rows, torch.ones(rows.stop - rows.start))
    expected = y @ plain(m, factor, shift)[rows].T + 1
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-4)
    scale = float(factor.grad.abs().max())
    torch.testing.assert_close(m.log_factor.grad / scale, factor.grad / scale, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(m.zero_shift.grad / scale, shift.grad / scale, rtol=1e-4, atol=1e-5)


def test_embedding_and_its_gradients() -> None:
    m = moved(matrix())
    ids = torch.tensor([[1, 4, 4], [0, 11, 1]])
    factor, shift = leaves(m)
    out, expected = kernels.embedding(ids, m), plain(m, factor, shift)[ids]
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    assert_same_gradients(m, (factor, shift))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cap", [None, 5.0])
def test_divergence_and_its_gradients(reverse: bool, cap: float | None) -> None:
    m = moved(matrix(n=30))
    positions = kernels.POSITIONS + 7  # two slices
    hidden = torch.randn(positions, K, requires_grad=True)
    again = hidden.detach().clone().requires_grad_()
    wanted, head = torch.randn(positions, K), torch.randn(30, K)
    factor, shift = leaves(m)

    def capped(raw: torch.Tensor) -> torch.Tensor:
        return raw if cap is None else torch.tanh(raw / cap) * cap

    log_q = capped(again @ plain(m, factor, shift).T).log_softmax(-1)
    log_p = capped(wanted @ head.T).log_softmax(-1)
    first, second = (log_q, log_p) if reverse else (log_p, log_q)
    expected = (first.exp() * (first - second)).sum(-1).mean()
    found = kernels.divergence(hidden, m, wanted, head, cap=cap, reverse=reverse)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    (3 * found).backward()
    (3 * expected).backward()
    torch.testing.assert_close(hidden.grad, again.grad, rtol=1e-3, atol=1e-5)
    assert_same_gradients(m, (factor, shift))


def test_divergence_of_a_fixed_head() -> None:
    hidden, head = torch.randn(9, K, requires_grad=True), torch.randn(30, K)
    same = kernels.divergence(hidden, head, hidden.detach(), head, cap=None, reverse=False)
    assert float(same.detach()) == pytest.approx(0, abs=1e-6)
    same.backward()
    assert hidden.grad is not None


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("scale_bits", [32, 16, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_an_untrained_matrix_is_what_is_stored_and_a_trained_one_what_will_be(
    bits: int, scale_bits: int, symmetric: bool
) -> None:
    fmt = WeightFormat(bits=bits, block_size=32, symmetric=symmetric, scale_bits=scale_bits)
    rows = np.random.default_rng(bits).normal(size=(N, 64)).astype(np.float32)
    arrays = quantize_rows(rows, fmt)
    m = BlockMatrix(arrays, fmt, 64, train_zero_points=True)
    np.testing.assert_array_equal(m.dequantize().numpy(), dequantize_rows(arrays, fmt, 64))
    moved(m)
    if m.zero_shift is not None:
        with torch.no_grad():
            m.zero_shift += 0.7
    trained: dict[str, Any] = {**arrays, **m.stored()}
    np.testing.assert_array_equal(m.dequantize().numpy(), dequantize_rows(trained, fmt, 64))
    for name, array in m.stored().items():
        assert array.dtype == arrays[name].dtype
        assert array.shape == arrays[name].shape


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 90), min_size=1, max_size=40),
    tokens=st.integers(16, 200),
    seed=st.integers(0, 5),
)
def test_every_pass_sees_every_sequence_once_within_the_limit(lengths: list[int], tokens: int, seed: int) -> None:
    sequences = [np.full(length, number) for number, length in enumerate(lengths)]
    batches = Batches(sequences, tokens, seed)
    index = 0
    for _ in range(3):
        seen: list[int] = []
        while len(seen) < len(sequences):
            batch = batches.at(index)
            seen += [int(sequence[0]) for sequence in batch]
            padded = len(batch) * max(len(sequence) for sequence in batch)
            assert len(batch) == 1 or padded <= tokens
            index += 1
        assert sorted(seen) == list(range(len(sequences)))
    late = Batches(sequences, tokens, seed)
    assert [s.tolist() for s in late.at(index - 1)] == [s.tolist() for s in batches.at(index - 1)]
