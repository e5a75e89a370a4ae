"""Tiny random models: written by transformers, exported with the graph builder, run with plain onnxruntime.

Used by the tests of this directory only. Works with transformers 4 and 5.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from edgedistill.architecture.families import build_spec
from edgedistill.architecture.tensors import model_tensors
from edgedistill.architecture.weights import check_tensors, logical_weights
from edgedistill.checkpoint.normalize import normalize
from edgedistill.checkpoint.quantized import open_quantized
from edgedistill.checkpoint.safetensors import open_safetensors
from edgedistill.export.writer import Layout, plan_layout
from edgedistill.graph.decoder import build_graph
from edgedistill.graph.inputs import Signature
from edgedistill.graph.weights import WeightEmitter
from edgedistill.quantize import dequantize_rows, quantize_rows
from edgedistill.quantize.plan import plan_weights
from edgedistill.quantize.spec import FLOAT32

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from edgedistill.architecture.spec import ModelSpec
    from edgedistill.checkpoint.types import TensorSource
    from edgedistill.quantize.plan import Rule
    from edgedistill.quantize.spec import WeightFormat

CONTEXT = 96
VOCAB = 67

BASE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


GRANITE4: dict[str, Any] = {"num_local_experts": 0, "shared_intermediate_size": 96, "mamba_n_heads": 8}

MINICPM: dict[str, Any] = {"scale_emb": 3, "scale_depth": 1.4, "dim_model_base": 24}


def save_random_model(
    directory: Path, model_type: str, *, rope: Mapping[str, Any] | None = None, seed: int = 0, **overrides: Any
) -> Any:
    """Write a random checkpoint of ``model_type`` and return the transformers model (float32, eager attention).

    ``rope`` is the content of ``rope_scaling``; it goes where the installed transformers expects it.
    """
    import pytest
    import torch
    import transformers

    if model_type == "minicpm":
        return save_random_minicpm(directory, rope=rope, seed=seed, **overrides)
    if model_type not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {transformers.__version__} does not know {model_type}")
    values = BASE | overrides
    if model_type == "granitemoehybrid":  # dense, as far as Granite 4 is
        values = GRANITE4 | {"layer_types": ["attention"] * values["num_hidden_layers"]} | values
    if rope is not None and int(transformers.__version__.split(".")[0]) < 5:
        values["rope_scaling"] = dict(rope)
        if model_type == "phi3":  # takes three fields, by the older name
            values["rope_scaling"]["type"] = values["rope_scaling"].pop("rope_type")
    elif rope is not None:
        full = {"rope_theta": values.pop("rope_theta", 10000.0)} | dict(rope)
        local = {"rope_theta": values.pop("rope_local_base_freq", 10000.0), "rope_type": "default"}
        both = {"full_attention": full, "sliding_attention": local}
        values["rope_parameters"] = both if model_type in ("gemma3_text", "gemma3n_text") else full
    config = transformers.AutoConfig.for_model(model_type, **values)
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    randomize(
        model,
        seed=seed,
        norm=0.0 if model_type in ("gemma", "gemma2", "gemma3_text") or "qwen3_5" in model_type else 1.0,
    )
    model = model.float().eval()
    model.save_pretrained(directory)
    return model


def save_random_minicpm(directory: Path, **values: Any) -> Any:
    """MiniCPM, which transformers does not know: its Llama, multiplied where the equations of MiniCPM's own code
    (modeling_minicpm.py of openbmb's models) say so.
    """
    scales = {key: values.pop(key, default) for key, default in MINICPM.items()}
    values.pop("mlp_bias", None)  # a key of Llama's that MiniCPM does not have
    model = save_random_model(directory, "llama", **values)
    path = directory / "config.json"
    config = json.loads(path.read_text()) | scales | {"model_type": "minicpm", "architectures": ["MiniCPMForCausalLM"]}
    path.write_text(json.dumps(config))

    def multiply(module: Any, factor: float) -> None:
        def hook(_module: Any, _inputs: Any, output: Any) -> Any:
            return (output[0] * factor, *output[1:]) if isinstance(output, tuple) else output * factor

        module.register_forward_hook(hook)

    model.config.update(scales)
    multiply(model.model.embed_tokens, scales["scale_emb"])
    for layer in model.model.layers:
        multiply(layer.self_attn, scales["scale_depth"] / math.sqrt(config["num_hidden_layers"]))
        multiply(layer.mlp, scales["scale_depth"] / math.sqrt(config["num_hidden_layers"]))
    multiply(model.model.norm, 1 / (config["hidden_size"] / scales["dim_model_base"]))
    return model


def randomize(model: Any, *, seed: int = 0, norm: float = 1.0) -> None:
    """Random parameters, large enough that attention is far from uniform and logits differ.

    Norms and biases are far from their initial ones and zeros, or a forgotten one would not show; ``norm`` is the mean
    of the former.
    """
    import torch

    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(0.4 * noise + norm)
            elif name.endswith("bias"):
                parameter.copy_(0.3 * noise)
            else:
                parameter.copy_(noise * 1.5 / parameter.shape[-1] ** 0.5)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.copy_(1.0 + 0.3 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("expert_bias"):
                buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))


@dataclass
class Exported:
    """A directory with model.onnx, model-genai.onnx and weights.bin, and what they were made from."""

    path: Path
    spec: ModelSpec
    layout: Layout


def export(
    checkpoint: Path,
    out: Path,
    fmt: WeightFormat = FLOAT32,
    *,
    rules: Sequence[Rule] = (),
    context_length: int = CONTEXT,
    dequantize: bool = False,
) -> Exported:
    """Export ``checkpoint`` the short way: all in memory. ``dequantize`` stores fmt's values as float32."""
    source = open_safetensors(checkpoint)
    try:
        found = normalize(*open_quantized(json.loads((checkpoint / "config.json").read_text()), source))
        return export_source(
            found.config, found.tensors, out, fmt, rules=rules, context_length=context_length, dequantize=dequantize
        )
    finally:
        source.close()


def export_source(
    config: Mapping[str, Any],
    source: TensorSource,
    out: Path,
    fmt: WeightFormat = FLOAT32,
    *,
    rules: Sequence[Rule] = (),
    context_length: int = CONTEXT,
    dequantize: bool = False,
) -> Exported:
    """Like ``export``, from an opened checkpoint."""
    spec = build_spec(config)
    source = model_tensors(config, spec, source)
    check_tensors(spec, source)
    out.mkdir(parents=True, exist_ok=True)
    weights = logical_weights(spec)
    target = plan_weights(weights, fmt, rules)
    stored_plan = plan_weights(weights, FLOAT32) if dequantize else target
    specs = [a for w in stored_plan.weights for a in w.arrays]
    layout = plan_layout(specs, "weights.bin")
    blob = np.zeros(layout.size, dtype=np.uint8)

    def put(name: str, array: np.ndarray) -> None:
        place = layout.arrays[name]
        assert array.dtype == place.spec.dtype
        assert array.shape == place.spec.shape, name
        blob[place.offset : place.offset + place.spec.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)

    for weight, planned in zip(weights, target.weights, strict=True):
        rows = np.concatenate([source.read_rows(p, 0, source.info(p).shape[0]) for p in weight.parts]) + np.float32(
            weight.offset
        )
        if planned.format.is_float:
            put(weight.name, rows)
            continue
        arrays = quantize_rows(rows, planned.format)
        if dequantize:
            put(weight.name, dequantize_rows(arrays, planned.format, rows.shape[1]))
        else:
            for suffix, array in arrays.items():
                put(f"{weight.name}.{suffix}", array)
    blob.tofile(out / "weights.bin")
    emitter = WeightEmitter(stored_plan.by_name(), layout.arrays)
    graphs: tuple[tuple[Signature, str], ...] = (
        ("edgedistill", "model.onnx"),
        ("genai", "model-genai.onnx"),
        ("portable", "model-portable.onnx"),
    )
    for signature, file in graphs[: 3 if spec.is_uniform else 1]:
        ir.save(build_graph(spec, emitter, signature=signature, context_length=context_length), out / file)
    return Exported(out, spec, layout)


class Decoder:
    """The edgedistill signature over plain onnxruntime, past and present copied on every call.

    Slow and simple on purpose: a reference for the graph's contract, row by row.
    """

    def __init__(self, exported: Exported, batch: int, capacity: int = CONTEXT) -> None:
        self.session = _session(exported.path / "model.onnx")
        self.capacity = capacity
        self.past = np.zeros(batch, dtype=np.int64)
        spec = exported.spec
        # Garbage, not zeros: entries beyond the past must not matter.
        self.cache = {
            f"past_key_values.{i}.{kind}": np.full(
                (batch, spec.num_key_value_heads, capacity, width), 7.0, dtype=np.float32
            )
            for i, width in ((i, spec.of_layer(i).head_dim) for i in spec.attention_layers)
            for kind in ("key", "value")
        }
        # States begin as zeros.
        self.cache |= {f"past_state.{n}": np.zeros((batch, *shape), np.float32) for n, shape in spec.states}

    def step(self, rows: Sequence[Sequence[int]], logit_index: np.ndarray | None = None) -> np.ndarray:
        """Append ``rows`` (of unequal length, possibly empty); logits float32 [B, P, V], by default of all."""
        width = max(len(row) for row in rows)
        valid = np.array([len(row) for row in rows], dtype=np.int32)
        ids = np.zeros((len(rows), width), dtype=np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
        if logit_index is None:
            logit_index = np.tile(np.arange(width, dtype=np.int64), (len(rows), 1))
        feeds = {
            "input_ids": ids,
            "seqlens_k": (self.past + valid - 1).astype(np.int32),
            "query_seqlens": valid,
            "total_sequence_length": np.array(self.capacity, dtype=np.int32),
            "logit_index": logit_index,
        }
        if any(name.startswith("past_state.") for name in self.cache):
            feeds["state_seqlens"] = valid
        names = [o.name for o in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(None, feeds | self.cache), strict=True))
        self.cache = {name: outputs[_present(name)] for name in self.cache}
        self.past += valid
        logits: np.ndarray = outputs["logits"]
        return logits


def _present(past: str) -> str:
    return past.replace("past_key_values", "present").replace("past_state", "present_state")


def session_of(exported: Exported, signature: Signature) -> Any:
    """Session over the graph of another signature than the runtime's."""
    return _session(exported.path / f"model-{signature}.onnx")


def _session(path: Path) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def reference_logits(model: Any, tokens: Sequence[int]) -> np.ndarray:
    """transformers' logits for one sequence without a past, float32 [S, V].

    Layers that read another's keys find them in the cache alone (Gemma 3n), so that there has to be one for them.
    """
    import torch

    shared = bool(getattr(model.config.get_text_config(), "num_kv_shared_layers", 0))
    with torch.no_grad():
        logits: np.ndarray = model(input_ids=torch.tensor([list(tokens)]), use_cache=shared).logits[0].numpy()
    return logits


def random_tokens(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(3, VOCAB, count)]
