"""Whether this ONNX Runtime reads a product's scales after it has packed them, found out by trying.

``MatMulNBits`` packs scales with the codes and says all the same that it has not, so that ONNX Runtime keeps them.
Which kernels read them again depends on version, processor and format (1.32 on x86-64: those for accuracy_level 4 do
not, of 2 bits only some). A smaller product is opened, and its scales are replaced by NaN afterwards: what reads them
cannot give the same result.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

if TYPE_CHECKING:
    from edgedistill.quantize.spec import WeightFormat

_ROWS, _WHOLE_ROWS = 147, 256
"""Whole ones divide by 128, as kernels that look products up in tables want them."""
_BLOCKS = 9
_TOKENS = (1, 2, 5, 33, 300)
"""Numbers of tokens. Like rows and blocks: more than the largest tiles of kernels (eight blocks, 128 tokens), and some
that are left over."""
_FLOAT, _UINT8 = 1, 2
"""Of TensorProto.DataType."""


def reads_scales(fmt: WeightFormat, shape: tuple[int, int], *, threads: int = 1) -> bool:
    """Whether products with a matrix [N, K] in ``fmt`` read its scales once a session with ``threads`` is open.

    Found out once for every format, with and without a last block that is not full, rows that divide by 128, and
    threads to share the work with (ONNX Runtime has code of its own for none); True where in doubt.
    """
    rows, rest = _ROWS if shape[0] % 128 else _WHOLE_ROWS, fmt.columns(shape[1]) % fmt.block_size
    return _reads(fmt.kernel_bits, fmt.block_size, fmt.symmetric, fmt.accuracy_level, rows, rest, min(threads, 2))


@functools.cache
def _reads(bits: int, block: int, symmetric: bool, accuracy_level: int, rows: int, rest: int, threads: int) -> bool:
    k = _BLOCKS * block - (block - rest if rest else 0)
    rng = np.random.default_rng(0)
    scales = rng.uniform(0.5, 1, (rows, _BLOCKS)).astype(np.float32)
    kept, value = scales.copy(), ort.OrtValue.from_dlpack(scales)
    inputs = [rng.standard_normal((tokens, k), dtype=np.float32) for tokens in _TOKENS]
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    options.add_initializer("scales", value)
    try:
        graph = product((rows, k), bits, block, symmetric, accuracy_level, rng)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "scales").touch()  # what is supplied has to have a file all the same
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", folder)
            session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        before = [session.run(None, {"x": x})[0] for x in inputs]
        scales.fill(np.nan)
        after = [session.run(None, {"x": x})[0] for x in inputs]
        scales[:] = kept
    except Exception:  # onnxruntime's exceptions share no base but this
        return True
    return not all(np.array_equal(a, b) and np.isfinite(a).all() for a, b in zip(before, after, strict=True))


def product(
    shape: tuple[int, int], bits: int, block: int, symmetric: bool, accuracy_level: int, rng: np.random.Generator
) -> bytes:
    """A graph of one ``MatMulNBits`` of random codes [N, K], ``x`` [tokens, K] to ``y``, whose ``scales`` are supplied.

    Encoded here (onnx.proto, https://github.com/onnx/onnx): running a bundle needs no package that builds graphs.
    """
    rows, k = shape
    initializers = [
        _tensor("codes", (rows, _BLOCKS, block * bits // 8), rng),
        _tensor("scales", (rows, _BLOCKS), None),
    ]
    names = ["x", "codes", "scales"]
    if not symmetric:
        initializers.append(_tensor("zeros", (rows, -(-_BLOCKS * bits // 8)), rng))
        names.append("zeros")
    sizes = {"K": k, "N": rows, "bits": bits, "block_size": block, "accuracy_level": accuracy_level}
    node = b"".join(_field(1, name) for name in names) + _field(2, "y") + _field(4, "MatMulNBits")
    node += b"".join(_field(5, _field(1, key) + _field(3, size) + _field(20, 2)) for key, size in sizes.items())
    node += _field(7, "com.microsoft")
    graph = _field(1, node) + _field(2, "product") + b"".join(_field(5, tensor) for tensor in initializers)
    graph += _field(11, _value("x", k)) + _field(12, _value("y", rows))
    opsets = [_field(1, domain) + _field(2, version) for domain, version in (("", 21), ("com.microsoft", 1))]
    return _field(1, 10) + _field(7, graph) + b"".join(_field(8, opset) for opset in opsets)


def _tensor(name: str, shape: tuple[int, ...], rng: np.random.Generator | None) -> bytes:
    """TensorProto: random bytes, or without ``rng`` float32 in the file ``name``, beyond its end."""
    size = int(np.prod(shape))
    content = b"".join(_field(1, one) for one in shape) + _field(2, _UINT8 if rng else _FLOAT) + _field(8, name)
    if rng:
        return content + _field(9, rng.bytes(size))
    places = {"location": name, "offset": str(1 << 60), "length": str(4 * size)}
    places_of = [_field(13, _field(1, key) + _field(2, text)) for key, text in places.items()]
    return content + b"".join(places_of) + _field(14, 1)


def _value(name: str, columns: int) -> bytes:
    """ValueInfoProto of float32 [tokens, columns]."""
    shape = _field(1, _field(2, "tokens")) + _field(1, _field(1, columns))
    return _field(1, name) + _field(2, _field(1, _field(1, _FLOAT) + _field(2, shape)))


def _field(number: int, value: Any) -> bytes:
    """A field of a protobuf message: a number, or a text or message with its length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
