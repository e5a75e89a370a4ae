"""The stored layout is what ONNX Runtime reads: its own kernels against ``dequantize_rows``."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgedistill.quantize import dequantize_rows, quantize_rows
from edgedistill.quantize.spec import WeightFormat


def wide(bits, block, symmetric, method, **rest):
    """A format that the kernels read without conversion."""
    return WeightFormat(bits, block, symmetric, method, scale_bits=32, **rest)


def run(nodes, inputs, outputs, initializers, feed):
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)], ir_version=10
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def matmul_nbits(x, arrays, fmt, n, k):
    names = ["x", "q", "scales"] + ([] if fmt.symmetric else ["zero_points"])
    node = helper.make_node(
        "MatMulNBits",
        names,
        ["y"],
        domain="com.microsoft",
        K=k,
        N=n,
        bits=fmt.bits,
        block_size=fmt.block_size,
        accuracy_level=fmt.accuracy_level,
    )
    stored = [numpy_helper.from_array(arrays[name], name) for name in names[1:]]
    value = helper.make_tensor_value_info
    return run(
        [node],
        [value("x", TensorProto.FLOAT, [None, k])],
        [value("y", TensorProto.FLOAT, [None, n])],
        stored,
        {"x": x},
    )


def weights(n, k, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.standard_t(4, (n, k)).astype(np.float32) * np.float32(0.05)
    rows[0] = 0
    rows[1] = 0.25
    rows[2] = -np.abs(rows[2])
    return rows


@pytest.mark.parametrize("method", ["rtn", "search"])
@pytest.mark.parametrize("symmetric", [True, False], ids=["sym", "asym"])
@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("blocks", [1, 3, 4])
def test_matmul_nbits_reads_the_layout(bits, block, blocks, symmetric, method) -> None:
    n, k = 24, block * blocks
    fmt = wide(bits, block, symmetric, method, accuracy_level=1)
    rows = weights(n, k)
    arrays = quantize_rows(rows, fmt)
    x = np.random.default_rng(1).standard_normal((5, k)).astype(np.float32)
    expected = x @ dequantize_rows(arrays, fmt, k).T
    for part in (x, x[:1]):  # the one-row path is another kernel
        got = matmul_nbits(part, arrays, fmt, n, k)
        np.testing.assert_allclose(got, expected[: len(part)], rtol=1e-4, atol=1e-4)
    assert not np.any(got[:, 0])


@pytest.mark.parametrize("symmetric", [True, False], ids=["sym", "asym"])
@pytest.mark.parametrize("bits", [4, 8])
def test_int8_activations_stay_near(bits, symmetric) -> None:
    """accuracy_level 4, the deployed one, with negative scales among the symmetric ones and zero scales."""
    n, k = 64, 256
    fmt = wide(bits, 32, symmetric, "search", accuracy_level=4)
    arrays = quantize_rows(weights(n, k), fmt)
    if symmetric:
        scales: Any = arrays["scales"]
        assert (scales < 0).any()
    x = np.random.default_rng(1).standard_normal((8, k)).astype(np.float32)
    expected = x @ dequantize_rows(arrays, fmt, k).T
    for part in (x, x[:1]):
        got = matmul_nbits(part, arrays, fmt, n, k)
        error = np.linalg.norm(got - expected[: len(part)]) / np.linalg.norm(expected[: len(part)])
        assert error < 0.02
        assert not np.any(got[:, 0])


@pytest.mark.parametrize("k", [40, 100])
@pytest.mark.parametrize("symmetric", [True, False], ids=["sym", "asym"])
@pytest.mark.parametrize("bits", [4, 8])
def test_matmul_nbits_with_a_padded_last_block(bits, symmetric, k) -> None:
    n = 16
    fmt = wide(bits, 32, symmetric, "search", accuracy_level=1)
    arrays = quantize_rows(weights(n, k), fmt)
    x = np.random.default_rng(1).standard_normal((3, k)).astype(np.float32)
    expected = x @ dequantize_rows(arrays, fmt, k).T
    np.testing.assert_allclose(matmul_nbits(x, arrays, fmt, n, k), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("symmetric", [True, False], ids=["sym", "asym"])
@pytest.mark.parametrize("bits", [4, 8])
def test_gather_block_quantized_reads_the_same_arrays(bits, symmetric) -> None:
    """The tied embedding: GatherBlockQuantized over the lm_head's own bytes, the codes viewed as [N, K*bits/8]."""
    n, k = 20, 96  # an odd number of blocks: the zero points of a row end in half a byte
    fmt = wide(bits, 32, symmetric, "search")
    arrays = quantize_rows(weights(n, k), fmt)
    stored = {"q": arrays["q"].reshape(n, -1), **{name: array for name, array in arrays.items() if name != "q"}}
    ids = np.array([[3, 0], [19, 1]], np.int64)
    node = helper.make_node(
        "GatherBlockQuantized",
        ["q", "ids", "scales"] + ([] if symmetric else ["zero_points"]),
        ["y"],
        domain="com.microsoft",
        bits=bits,
        block_size=32,
        gather_axis=0,
        quantize_axis=1,
    )
    value = helper.make_tensor_value_info
    got = run(
        [node],
        [value("ids", TensorProto.INT64, [2, 2])],
        [value("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
        {"ids": ids},
    )
    np.testing.assert_allclose(got.reshape(2, 2, k), dequantize_rows(arrays, fmt, k)[ids], rtol=1e-6)
