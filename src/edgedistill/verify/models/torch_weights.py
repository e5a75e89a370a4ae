"""Builds the PyTorch module of a checkpoint, with weights from the same reader that the exporter uses.

The module is built without allocating weights. Using the exporter's reader, GGUF files, adapters and half precision
give the same values as in the bundle. A model larger than memory keeps its layers on PyTorch's ``meta`` device and
loads each when it is computed (``stream``). The module also checks which devices PyTorch has and how much memory they
have free.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, Literal

from edgedistill.architecture.families import build_spec, is_known
from edgedistill.checkpoint.rope_spelling import readable_rope
from edgedistill.errors import CheckpointError, MissingExtraError, UnsupportedModelError, UsageError
from edgedistill.extras import how_to_install

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.checkpoint.open import Checkpoint

Device = Literal["cpu", "cuda", "mps"]
_KEYS = re.compile(r"\.layers\.(\d+)\.self_attn\.(?:[kv]_proj|k_norm)\.")
DEVICES: tuple[Device, ...] = ("cpu", "cuda", "mps")


def require_device(torch: Any, device: Device) -> None:
    """Raises UsageError unless PyTorch has ``device`` on this machine."""
    if device not in DEVICES:
        raise UsageError(f"There is no device {device!r}; expected {', '.join(DEVICES)}.")
    if device == "cpu" or (torch.cuda if device == "cuda" else torch.backends.mps).is_available():
        return
    raise UsageError(
        f"PyTorch {torch.__version__} finds no device {device} here.",
        hint="Use --device cpu, or install a build of PyTorch for the device.",
    )


def free_memory(torch: Any, device: Device) -> int:
    """Free memory of the device, in bytes."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    if device == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory())
    import psutil

    return int(psutil.virtual_memory().available)


def import_torch() -> tuple[Any, Any]:
    """The modules torch and transformers; raises MissingExtraError."""
    try:
        import torch  # noqa: TID251
        import transformers  # noqa: TID251
    except ImportError as error:
        raise MissingExtraError(
            f"The original can only be run with PyTorch, and {error.name} is not installed.",
            hint=f"Install it with: {how_to_install('torch')}; or give an fp32 bundle as the reference.",
        ) from error
    return torch, transformers


def build_module(checkpoint: Checkpoint, *, stream: bool) -> Any:
    """The model in float32, in evaluation mode.

    Args:
        checkpoint: Stays in use if ``stream``.
        stream: Leave the decoder layers out and load each one while it runs.

    Raises:
        CheckpointError: A weight that the architecture has is not in the checkpoint.
        MissingExtraError: See ``import_torch``.
    """
    torch, _ = import_torch()
    model = empty_module(checkpoint)
    decoder = model.get_decoder()
    layers = set(decoder.layers) if stream else set()
    streamed = {id(p) for layer in layers for p in layer.parameters()}
    tied = {id(model.get_output_embeddings().weight)} if model.config.tie_word_embeddings else set()
    for name, parameter in list(model.named_parameters(remove_duplicate=False)):
        if id(parameter) not in streamed and not (id(parameter) in tied and name.startswith("lm_head")):
            _set(torch, model, name, _read(torch, checkpoint, name, tuple(parameter.shape)))
    model.tie_weights()
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    for index, layer in enumerate(decoder.layers if stream else ()):
        _load_when_run(torch, checkpoint, layer, f"{prefix}.layers.{index}")
    return model


def empty_module(checkpoint: Checkpoint) -> Any:
    """The model in evaluation mode, with parameters that have shapes but no values.

    Raises:
        MissingExtraError: See ``import_torch``.
        UnsupportedModelError: The installed transformers does not know the model's type, does not return the states of
            its layers, or cannot read its RoPE.
    """
    torch, transformers = import_torch()
    kind = str(checkpoint.config.get("model_type"))
    if kind not in transformers.CONFIG_MAPPING:
        raise UnsupportedModelError(
            f"transformers {transformers.__version__} does not know models of type {kind}.",
            hint="Install a newer transformers to compare with the original in PyTorch.",
        )
    layers = {*(checkpoint.config.get("layer_types") or ())}
    if kind == "granitemoehybrid" and layers & {"mamba", "linear_attention"} and transformers.__version__[:2] == "4.":
        raise UnsupportedModelError(
            f"transformers {transformers.__version__} does not give back the states of Mamba layers, so that no reply "
            "can be drawn.",
            hint="Install transformers 5, or give an fp32 bundle as the reference.",
        )
    values = {k: v for k, v in checkpoint.config.items() if k not in ("model_type", "torch_dtype", "dtype")}
    example = transformers.AutoConfig.for_model(kind)
    config = transformers.AutoConfig.for_model(kind, **readable_rope(values, vars(example)))
    # PyTorch's fused attention has no soft cap; transformers drops it there.
    attention = "eager" if getattr(config, "attn_logit_softcapping", None) else "sdpa"
    with _parameters_on_meta(torch), torch.no_grad():
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    model.eval()
    return model


@contextlib.contextmanager
def _parameters_on_meta(torch: Any) -> Iterator[None]:
    """New parameters take no memory and no time to initialise; buffers, which are not in files, are made as usual."""
    register = torch.nn.Module.register_parameter

    def register_on_meta(module: Any, name: str, parameter: Any) -> None:
        if parameter is not None:
            parameter = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)
        register(module, name, parameter)

    torch.nn.Module.register_parameter = register_on_meta
    try:
        yield
    finally:
        torch.nn.Module.register_parameter = register


def _read(torch: Any, checkpoint: Checkpoint, name: str, shape: tuple[int, ...]) -> Any:
    if _is_unread(checkpoint, name):
        return torch.zeros(shape)
    found = checkpoint.tensors.info(name).shape
    if found != shape:
        raise CheckpointError(f"{name} has the shape {found}; transformers expects {shape}.")
    return torch.from_numpy(checkpoint.tensors.read_rows(name, 0, shape[0]))


def _is_unread(checkpoint: Checkpoint, name: str) -> bool:
    """Whether ``name`` makes keys of a layer that reads another's: transformers 4 has such matrices in a Gemma 3n and
    never uses them; transformers 5 does not save them.
    """
    made = _KEYS.search(name)
    if made is None or not checkpoint.config.get("num_kv_shared_layers") or not is_known(checkpoint.config):
        return False
    return build_spec(checkpoint.config).layers[int(made[1])].keys_of is not None


def _set(torch: Any, module: Any, name: str, value: Any) -> None:
    *path, last = name.split(".")
    for part in path:
        module = getattr(module, part)
    module._parameters[last] = torch.nn.Parameter(value, requires_grad=False)


def _load_when_run(torch: Any, checkpoint: Checkpoint, layer: Any, prefix: str) -> None:
    """Hooks that fill a layer's parameters before it runs and drop them after."""
    empty = dict(layer.named_parameters())

    def load(*_: Any) -> None:
        for name, parameter in empty.items():
            _set(torch, layer, name, _read(torch, checkpoint, f"{prefix}.{name}", tuple(parameter.shape)))

    def drop(*_: Any) -> None:
        for name, parameter in empty.items():
            _set(torch, layer, name, parameter.data)

    layer.register_forward_pre_hook(load)
    layer.register_forward_hook(drop)
