"""A PEFT LoRA adapter read: what it changes, by the names of the base's tensors; ``lora_source`` merges it.

Scaling is alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023, arXiv:2312.03732).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from edgedistill.checkpoint.lora_source import Changes, Delta, LoraSource
from edgedistill.checkpoint.normalize import EMBEDDING, HEAD, NO_TEXT
from edgedistill.checkpoint.safetensors import open_safetensors_file
from edgedistill.checkpoint.tokenizer.files import read_json
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.checkpoint.safetensors import SafetensorsSource
    from edgedistill.checkpoint.types import TensorSource

ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
_PREFIX = "base_model.model."
_HINT = "Merge it with PEFT (merge_and_unload, save_pretrained) and export the merged model."
# Options that change the arithmetic. Everything else in adapter_config.json concerns training.
_REFUSED = {
    "layer_replication": "replicated layers", "use_qalora": "QALoRA", "alora_invocation_tokens": "activated LoRA",
    "target_parameters": "LoRA on parameters", "use_bdlora": "block-diagonal LoRA", "arrow_config": "Arrow",
    "kasa_config": "KaSA",
}  # fmt: skip
# Initialisations that also changed the base weights, which the adapter alone does not tell.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_LORA = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.default)?(\.(?P<kind>weight|bias))?"
)
_MAGNITUDE = re.compile(r"(?P<module>.+)\.lora_magnitude_vector(\.default)?(\.weight)?")
_TOKENS = re.compile(r"(?P<module>.+)\.token_adapter\.trainable_tokens_delta(\.default)?")
_WRAPPERS = re.compile(r"((_orig_mod|module)\.)+")
_SAVED = re.compile(r"\.(modules_to_save(\.default)?|base_layer|token_adapter\.base_layer)\.")
# transformers' Conv1D, whose matrices are stored [in, out]; PEFT ignores ``fan_in_fan_out`` at any other module.
_CONV1D = ("c_attn", "c_proj", "c_fc", "q_attn")


@dataclass(slots=True)
class _Module:
    """What the adapter has for one module: names of its tensors by role (``A``, ``B``, ``bias``, ``magnitude``)."""

    original: str
    embedding: bool = False
    parts: dict[str, str] = field(default_factory=dict)


def open_adapter(directory: Path, base: TensorSource) -> LoraSource:
    """Open the PEFT adapter in ``directory`` over ``base``, which the result then owns.

    Raises CheckpointError for missing, damaged or unfitting files, UnsupportedModelError for other kinds of adapters.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such adapter directory.", hint="Pass a directory that PEFT saved.")
    config = read_json(directory / CONFIG_FILE)
    if not config:
        raise CheckpointError(f"{directory.name} has no {CONFIG_FILE}.", hint="Pass a directory that PEFT saved.")
    _refuse(config)
    if not (directory / ADAPTER_FILE).exists():
        if (directory / "adapter_model.bin").exists():
            raise UnsupportedModelError(
                f"{directory.name} has adapter_model.bin; expected {ADAPTER_FILE}.",
                hint="Load and save it again with PEFT.",
            )
        raise CheckpointError(f"{directory.name} has no {ADAPTER_FILE}.", hint="Copy the adapter again.")
    adapter = open_safetensors_file(directory / ADAPTER_FILE)
    try:
        changes = _read_changes(adapter, config, set(base.names()))
        copied = EMBEDDING in changes.replaced and _saves_copy(config, EMBEDDING)
        tied = bool(config.get("ensure_weight_tying"))
        facts = _facts(directory, config, changes)
        return LoraSource(base, adapter, changes, facts, copied_embedding=copied and not tied)
    except BaseException:
        adapter.close()
        raise


def _refuse(config: dict[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedModelError(f"The adapter is of type {kind!r}; expected 'LORA'.", hint=_HINT)
    for key, meaning in _REFUSED.items():
        if config.get(key):
            raise UnsupportedModelError(f"The adapter uses {meaning} ({key}), which is not supported.", hint=_HINT)
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASE):
        raise UnsupportedModelError(
            f"The adapter was initialised by {start!r}, which changed the base weights too.",
            hint="Save it with PEFT's path_initial_model_for_weight_conversion, or merge it with PEFT.",
        )


def _read_changes(adapter: SafetensorsSource, config: dict[str, Any], known: set[str]) -> Changes:
    """What the tensors of the adapter mean to a base with tensors of the names ``known``."""
    modules: dict[str, _Module] = {}
    changes, left_out = Changes(), []
    for stored in adapter.names():
        name = _WRAPPERS.sub("", stored)
        if not name.startswith(_PREFIX):
            raise _unknown(stored)
        original = _WRAPPERS.sub("", name.removeprefix(_PREFIX))
        match = _LORA.fullmatch(original) or _MAGNITUDE.fullmatch(original) or _TOKENS.fullmatch(original)
        target = _in_text_model(f"{match['module']}.weight" if match else _SAVED.sub(".", original), known)
        if target not in known and target != HEAD and NO_TEXT.search(original):
            left_out.append(stored)
        elif match is None and ".lora_" in original:
            raise _unknown(stored)
        elif match is None:
            # modules_to_save, trained biases, and embeddings that were saved along.
            changes.replaced[target] = stored
        elif match.re is _TOKENS:
            changes.tokens[target] = (stored, _token_ids(config, match["module"]))
        else:
            found = modules.setdefault(target.removesuffix(".weight"), _Module(match["module"]))
            if match.re is _LORA:
                found.embedding = match["embedding"] is not None
            role = "magnitude" if match.re is _MAGNITUDE else match["side"]
            found.parts["bias" if match.re is _LORA and match["kind"] == "bias" else role] = stored
    for module, found in modules.items():
        _add_module(changes, config, module, found, adapter)
    changes.left_out = tuple(left_out)
    if not changes.names:
        raise CheckpointError("The adapter changes no tensor.", hint="Pass a directory that PEFT saved.")
    return changes


def _add_module(
    changes: Changes, config: dict[str, Any], module: str, found: _Module, adapter: SafetensorsSource
) -> None:
    parts = found.parts
    if not {"A", "B"} <= parts.keys():
        raise CheckpointError(f"The adapter has only one of lora_A and lora_B for {module}.", hint=_HINT)
    if bool(config.get("use_dora")) != ("magnitude" in parts):
        raise CheckpointError(
            f"{CONFIG_FILE} says {'use_dora' if config.get('use_dora') else 'nothing of DoRA'}, but the adapter has "
            f"{'a' if 'magnitude' in parts else 'no'} lora_magnitude_vector for {module}.",
            hint="Copy the adapter again.",
        )
    rank, *_ = adapter.info(parts["A"]).shape or (0,)
    scaling = _scaling(config, found.original, rank)
    turned = bool(config.get("fan_in_fan_out")) and module.rpartition(".")[2] in _CONV1D
    changes.deltas[f"{module}.weight"] = Delta(
        parts["A"], parts["B"], scaling, found.embedding, turned, parts.get("magnitude")
    )
    if "bias" in parts:
        changes.biases[f"{module}.bias"] = (parts["bias"], scaling)


def _unknown(stored: str) -> UnsupportedModelError:
    return UnsupportedModelError(f"The adapter has a tensor {stored}, which is not supported.", hint=_HINT)


def _in_text_model(name: str, known: set[str]) -> str:
    """The base's name of a tensor that was called ``name`` where the adapter was trained, maybe in a larger model."""
    if name in known:
        return name
    _, found, inside = name.rpartition("language_model.")
    inside = inside.removeprefix("model.")
    return name if not found else inside if inside.startswith("lm_head.") else f"model.{inside}"


def _token_ids(config: dict[str, Any], module: str) -> tuple[int, ...]:
    """Ids of the tokens of ``module`` that were trained singly; raises CheckpointError where the config has none."""
    stated = config.get("trainable_token_indices")
    if isinstance(stated, dict):
        stated = next((ids for key, ids in stated.items() if module == key or module.endswith(f".{key}")), None)
    if not isinstance(stated, list) or not stated or not all(type(index) is int for index in stated):
        raise CheckpointError(
            f"{CONFIG_FILE} does not say which tokens of {module} were trained (trainable_token_indices).",
            hint="Copy the adapter again.",
        )
    return tuple(stated)


def _saves_copy(config: dict[str, Any], name: str) -> bool:
    """Whether ``modules_to_save`` names the module of this tensor (an embedding saved along is the base's, resized)."""
    module = name.rpartition(".")[0]
    saved = [_in_text_model(entry, set()) for entry in config.get("modules_to_save") or () if isinstance(entry, str)]
    return any(module == entry or module.endswith(f".{entry}") for entry in saved)


def _scaling(config: dict[str, Any], module: str, rank: int) -> float:
    patterns = config.get("alpha_pattern") or {}
    try:
        # As PEFT does (utils/other.py, get_pattern_key): the first pattern that matches the end of the name.
        found = next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), None)
        alpha = float(config["lora_alpha"] if found is None else patterns[found])
    except (re.error, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{CONFIG_FILE} has no usable lora_alpha or alpha_pattern ({error}).", hint="Copy the adapter again."
        ) from error
    if rank == 0 or not math.isfinite(alpha):
        raise CheckpointError(f"The adapter has rank {rank} and alpha {alpha} for {module}.", hint=_HINT)
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def _facts(directory: Path, config: dict[str, Any], changes: Changes) -> dict[str, Any]:
    trained_on = config.get("base_model_name_or_path")
    if isinstance(trained_on, str) and (PurePosixPath(trained_on).is_absolute() or trained_on[:1] in (".", "~")
                                        or PureWindowsPath(trained_on).drive):  # fmt: skip
        trained_on = PureWindowsPath(trained_on).name  # a path of the machine it was trained on
    return {
        "name": directory.resolve().name,
        "base_model": trained_on,
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "rslora": bool(config.get("use_rslora")),
        "dora": bool(config.get("use_dora")),
        "merged_tensors": len(changes.merged),
        "replaced_tensors": len(changes.replaced),
    }
