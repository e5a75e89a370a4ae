"""Traces any decoder that optimum-onnx knows; slower to export and to run than the graphs of the native exporter.

The checkpoint is loaded into transformers (all of it, in float32: memory grows with the model), traced by optimum-onnx
and quantized afterwards. The graph has the signature ``optimum``:

    ============================== ======= ===================================== ======================================
    input                          type    shape                                 meaning
    ============================== ======= ===================================== ======================================
    input_ids                      int64   [B, S]                                new tokens
    attention_mask                 int64   [B, past + S]                         ones; zeros mark padding on the left
    position_ids                   int64   [B, S]                                past .. past + S - 1; some lack it
    past_key_values.{i}.key/.value float32 [B, kv_heads, past, head]             past may be 0
    ============================== ======= ===================================== ======================================

Outputs: logits float32 [B, S, V] and present.{i}.key/.value float32 [B, kv_heads, past + S, head], new buffers to be
fed back as past. Inputs are known by name; their order differs between architectures. To roll back, cut the past.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.architecture.refused_types import reason
from edgedistill.errors import CheckpointError, UnsupportedModelError
from edgedistill.export.optimum.proof import prove, read_config, reference_logits, refused_config
from edgedistill.extras import missing
from edgedistill.progress import NullProgress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import onnx_ir as ir

    from edgedistill.checkpoint.types import Checkpoint
    from edgedistill.progress import Progress
    from edgedistill.quantize.plan import Plan, Rule
    from edgedistill.quantize.spec import WeightFormat

TASK = "text-generation-with-past"
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, slots=True)
class OptimumExport:
    """Geometry of the traced model, under the names of ``ModelSpec``, and the formats of its weights."""

    family: str
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    max_position_embeddings: int
    planned: Plan

    @property
    def states(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """None: what is traced has keys and values in every layer."""
        return ()

    @property
    def head_dims(self) -> tuple[int, ...]:
        """None: its layers have heads of one size."""
        return ()

    @property
    def keys_of(self) -> tuple[int, ...]:
        """None: its layers read keys of their own."""
        return ()

    def kv_bytes_per_token(self, itemsize: float = 4) -> int:
        """Bytes of KV cache per token over all layers."""
        return int(2 * self.num_hidden_layers * self.num_key_value_heads * self.head_dim * itemsize)


def is_available() -> bool:
    """Whether the extra ``optimum`` is installed."""
    # Parents first: the specification of a submodule cannot even be asked for without its package.
    names = ("optimum", "optimum.onnxruntime", "torch", "transformers")
    return all(importlib.util.find_spec(name) is not None for name in names)


def check_supported(config: Mapping[str, Any]) -> None:
    """Whether the fallback can export a model of this config.json, before anything is loaded.

    Raises:
        MissingExtraError: The extra is not installed.
        UnsupportedModelError: optimum-onnx does not know the architecture either.
    """
    if not is_available():
        raise missing("The fallback exporter needs optimum-onnx, which is not installed.", "optimum")
    import optimum.exporters.onnx.model_configs  # noqa: F401  importing it registers the architectures
    from optimum.exporters.tasks import TasksManager

    model_type = str(config.get("model_type"))
    try:
        tasks = TasksManager.get_supported_tasks_for_model_type(model_type, "onnx", library_name="transformers")
    except KeyError:
        tasks = {}
    if TASK not in tasks:
        raise UnsupportedModelError(
            "Neither the native exporter nor optimum-onnx can export text generation for a model of type "
            f"'{model_type}'{reason(model_type)}.",
            hint="See what is known: edgedistill families",
        )


def export_with_optimum(
    checkpoint: Checkpoint,
    directory: Path,
    *,
    default: WeightFormat,
    rules: Sequence[Rule] = (),
    progress: Progress | None = None,
    allow_unused: bool = False,
) -> OptimumExport:
    """Write model.onnx and weights.bin (its external data) of the signature ``optimum`` into ``directory``.

    Args:
        checkpoint: Any decoder that transformers knows; code in the model's repository is never run.
        directory: Existing directory on the target's filesystem.
        default: Format of matrices that no rule matches; float32 leaves them unquantized.
        rules: The first match wins; see ``quantize_onnx.quantize_graph`` for the names.
        progress: Receives elements of weights.
        allow_unused: Trace even if transformers does not use some keys of the config or tensors of the checkpoint.

    Raises:
        ExportError: The traced graph gives other logits than the model.
        MissingExtraError: The extra ``optimum`` is not installed.
        UnsupportedModelError: optimum-onnx does not know the architecture, or fails to trace it; transformers refuses
            the config.
        CheckpointError: Tensors are missing, unused or of the wrong shape; the config has unknown keys.
    """
    import onnx_ir as ir

    from edgedistill.export.optimum.quantize_onnx import quantize_graph

    progress = progress or NullProgress()
    check_supported(checkpoint.config)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".trace-") as scratch, _silence():
        model = _load(checkpoint, progress, allow_unused=allow_unused)
        config = model.config
        expected = reference_logits(model)
        _trace(model, Path(scratch), progress)
        del model
        prove(Path(scratch) / "model.onnx", expected)
        graph = ir.load(Path(scratch) / "model.onnx")
        geometry = _geometry(graph, config)
        planned = quantize_graph(graph, default, rules, vocab_size=geometry["vocab_size"], progress=progress)
        graph.metadata_props["edgedistill.signature"] = "optimum"
        graph.producer_name = "edgedistill"
        ir.save(graph, directory / "model.onnx", external_data="weights.bin")
    return OptimumExport(family=str(checkpoint.config["model_type"]), planned=planned, **geometry)


def _load(checkpoint: Checkpoint, progress: Progress, *, allow_unused: bool) -> Any:
    """The transformers model with the checkpoint's tensors, float32."""
    import torch  # noqa: TID251  only this function of the fallback needs it
    from transformers import AutoConfig, AutoModelForCausalLM  # noqa: TID251

    source = checkpoint.tensors
    config = read_config(checkpoint.config, AutoConfig, allow_unused=allow_unused)
    # Buffers such as stored causal masks are not weights: transformers makes them itself.
    infos = [source.info(name) for name in source.names()]
    infos = [info for info in infos if info.dtype in _FLOATS and info.shape]
    progress.begin("loading", sum(info.size for info in infos), "items")
    state = {}
    for info in infos:
        state[info.name] = torch.from_numpy(source.read_rows(info.name, 0, info.shape[0]))
        progress.advance(info.size)
    progress.end()
    model_class = AutoModelForCausalLM._model_mapping[type(config)]
    try:
        model, loading = model_class.from_pretrained(
            None, config=config, state_dict=state, output_loading_info=True, torch_dtype=torch.float32
        )
    except RuntimeError as error:
        raise CheckpointError(
            f"The tensors do not fit config.json ({_last_line(error)}).",
            hint="The checkpoint and config.json do not belong together.",
        ) from error
    except Exception as error:  # a RoPE kind without a function raises KeyError; foreign code may raise anything
        raise refused_config(str(checkpoint.config["model_type"]), error) from error
    unused = sorted(name for name in loading["unexpected_keys"] if not name.endswith(".rotary_emb.inv_freq"))
    if unused and not allow_unused:
        raise CheckpointError(
            f"The checkpoint has {len(unused)} tensors that transformers does not use, such as '{unused[0]}'.",
            hint="It may compute something else than config.json says. To leave them out all the same: --allow-unused",
        )
    if loading["missing_keys"]:
        raise CheckpointError(
            f"The checkpoint lacks {len(loading['missing_keys'])} tensors, such as '{min(loading['missing_keys'])}'.",
            hint="The checkpoint is incomplete or belongs to another config.json.",
        )
    return model.eval()


def _trace(model: Any, scratch: Path, progress: Progress) -> None:
    from optimum.exporters.onnx import onnx_export_from_model

    progress.begin("tracing", 0, "items")
    # optimum copies the tokenizer from the model's path; with None it would ask the Hub for a model of that name.
    model.config._name_or_path = str(scratch)
    try:
        onnx_export_from_model(model, scratch, task=TASK, do_validation=False)
    except Exception as error:  # whatever tracing foreign code may raise
        raise UnsupportedModelError(
            f"optimum-onnx could not trace this {model.config.model_type} model "
            f"({type(error).__name__}: {_last_line(error)}).",
            hint="Neither exporter can export it as it is.",
        ) from error
    progress.end()


def _geometry(graph: ir.Model, config: Any) -> dict[str, int]:
    """Numbers that a runtime needs, from the graph's own inputs where they are there."""
    inputs = {value.name: value for value in graph.graph.inputs}
    keys = [value for name, value in inputs.items() if name and name.endswith(".key")]
    logits = next(value for value in graph.graph.outputs if value.name == "logits")
    kv_heads, head_dim = (keys[0].shape[axis] if keys and keys[0].shape is not None else None for axis in (1, 3))
    vocab_size = logits.shape[2] if logits.shape is not None else None
    if not isinstance(kv_heads, int) or not isinstance(head_dim, int) or not isinstance(vocab_size, int):
        raise UnsupportedModelError(
            "The traced graph has no key/value cache of a fixed shape; one per layer is expected.",
            hint="Neither exporter can export this model.",
        )
    return {
        "hidden_size": int(config.hidden_size),
        "num_hidden_layers": len(keys),
        "num_attention_heads": int(config.num_attention_heads),
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "vocab_size": vocab_size,
        # Models without learned or rotary positions (BLOOM) name no limit.
        "max_position_embeddings": int(getattr(config, "max_position_embeddings", None) or 2048),
    }


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Suppress the warnings and output of tracing: only the command line prints."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
