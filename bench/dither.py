"""Makes a fair full-precision original from a quantized GGUF: moves its weights off their grid by noise of half a step.

The published SmolLM2 has its weights on a 4-bit grid, so a 4-bit format with the same grid would look too good. Uniform
noise within half a step of each block's grid (with a fixed seed) makes an original of about the same quality, whose
weights are on no format's grid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = 32


def dithered_gguf(source: Path, target: Path, seed: int = 0) -> Path:
    """Write ``source`` as float32 with every quantized tensor dithered; returns ``target``, made once."""
    import gguf
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    if target.is_file():
        return target
    reader = GGUFReader(str(source))
    architecture = str(reader.fields["general.architecture"].contents())
    partial = target.with_suffix(".partial")
    target.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(partial, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = field.contents()
        if name == "general.file_type":
            value = int(gguf.LlamaFileType.ALL_F32)
        kind = field.types[0]
        item = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(name, value, kind, sub_type=item)
    rng = np.random.default_rng(seed)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if tensor.tensor_type not in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16):
            values = _dither(values, rng)
        writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(target)
    return target


def _dither(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise within half of the smallest distance between two values of a block."""
    blocks = values.reshape(-1, _BLOCK)
    ordered = np.sort(blocks, axis=1)
    gaps = np.diff(ordered, axis=1)
    floor = (ordered[:, -1:] - ordered[:, :1]) / 64  # equal values differ by rounding; a grid of 16 has larger steps
    step = np.where(gaps > floor, gaps, np.inf).min(axis=1, keepdims=True)
    step = np.where(np.isfinite(step), step, 0)
    noise = rng.uniform(-0.5, 0.5, blocks.shape).astype(np.float32) * step
    return (blocks + noise).reshape(values.shape).astype(np.float32)
