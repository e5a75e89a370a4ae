"""Whether this ONNX Runtime reads a product's scales after it has packed them, found out by trying.

``MatMulNBits`` packs scales with the codes and says all the same that it has not, so that ONNX Runtime keeps them.
Which kernels read them again depends on version, processor and format (1.32 on x86-64: those for accuracy_level 4 do
not, of 2 bits only some). A product of a few rows is opened, and its scales are replaced by NaN afterwards: what reads
them cannot give the same result.
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

_ROWS = 19
_BLOCKS = 3
_TOKENS = (1, 2, 5, 33)
"""Numbers of tokens: kernels differ for one, for a few, and for what does not divide by their tiles."""
_FLOAT, _UINT8 = 1, 2
"""Of TensorProto.DataType."""


def reads_scales(fmt: WeightFormat, columns: int) -> bool:
    """Whether products with a matrix in ``fmt`` of so many columns read its scales once the session is open.

    Found out once for every format, with and without a last block that is not full; True where in doubt.
    """
    return _reads(fmt.kernel_bits, fmt.block_size, fmt.symmetric, fmt.accuracy_level, columns % fmt.block_size)


@functools.cache
def _reads(bits: int, block: int, symmetric: bool, accuracy_level: int, rest: int) -> bool:
    k = _BLOCKS * block - (block - rest if rest else 0)
    rng = np.random.default_rng(0)
    scales = rng.uniform(0.5, 1, (_ROWS, _BLOCKS)).astype(np.float32)
    kept, value = scales.copy(), ort.OrtValue.from_dlpack(scales)
    inputs = [rng.standard_normal((tokens, k), dtype=np.float32) for tokens in _TOKENS]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_initializer("scales", value)
    try:
        graph = product(k, bits, block, symmetric, accuracy_level, rng)
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


def product(k: int, bits: int, block: int, symmetric: bool, accuracy_level: int, rng: np.random.Generator) -> bytes:
    """A graph of one ``MatMulNBits`` with random codes, [tokens, ``k``] ``x`` to ``y``, whose ``scales`` are supplied.

    Encoded here (onnx.proto, https://github.com/onnx/onnx): running a bundle needs no package that builds graphs.
    """
    initializers = [
        _tensor("codes", (_ROWS, _BLOCKS, block * bits // 8), rng),
        _tensor("scales", (_ROWS, _BLOCKS), None),
    ]
    names = ["x", "codes", "scales"]
    if not symmetric:
        initializers.append(_tensor("zeros", (_ROWS, -(-_BLOCKS * bits // 8)), rng))
        names.append("zeros")
    sizes = {"K": k, "N": _ROWS, "bits": bits, "block_size": block, "accuracy_level": accuracy_level}
    node = b"".join(_field(1, name) for name in names) + _field(2, "y") + _field(4, "MatMulNBits")
    node += b"".join(_field(5, _field(1, key) + _field(3, size) + _field(20, 2)) for key, size in sizes.items())
    node += _field(7, "com.microsoft")
    graph = _field(1, node) + _field(2, "product") + b"".join(_field(5, tensor) for tensor in initializers)
    graph += _field(11, _value("x", k)) + _field(12, _value("y", _ROWS))
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
