"""A PEFT LoRA adapter merged into a base checkpoint while its rows are read.

LoRA (Hu et al. 2021, arXiv:2106.09685): W + scaling * B @ A with scaling alpha / r, or alpha / sqrt(r) for rsLoRA
(Kalajdzievski 2023, arXiv:2312.03732). Only the rows that are asked for are multiplied; A and B are small.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.checkpoint.grid import grid_of, read_grid
from edgedistill.checkpoint.safetensors import SafetensorsSource, check_rows, missing_tensor, open_safetensors_file
from edgedistill.checkpoint.tokenizer.files import read_json
from edgedistill.checkpoint.types import TensorInfo
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.checkpoint.grid import Grid, Scales, ZeroPoints
    from edgedistill.checkpoint.types import TensorSource

ADAPTER_FILE = "adapter_model.safetensors"
CONFIG_FILE = "adapter_config.json"
_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
_PREFIX = "base_model.model."
_HINT = "Merge it with PEFT (merge_and_unload, save_pretrained) and export the merged model."
# Options that change the arithmetic. Everything else in adapter_config.json concerns training.
_REFUSED = {
    "use_dora": "DoRA", "fan_in_fan_out": "transposed weights", "lora_bias": "LoRA biases",
    "layer_replication": "replicated layers", "trainable_token_indices": "single trained tokens",
    "use_qalora": "QALoRA", "alora_invocation_tokens": "activated LoRA", "target_parameters": "LoRA on parameters",
    "use_bdlora": "block-diagonal LoRA", "arrow_config": "Arrow", "kasa_config": "KaSA",
}  # fmt: skip
# Initialisations that also changed the base weights, which the adapter alone does not tell.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.weight)?")


@dataclass(frozen=True, slots=True)
class Delta:
    """The change of one tensor: adapter tensors A [r, in] and B [out, r], ``scaling``; transposed for embeddings."""

    a: str
    b: str
    scaling: float
    embedding: bool


class LoraSource:
    """The base's tensors with the adapter merged, computed in float32."""

    def __init__(
        self,
        base: TensorSource,
        adapter: SafetensorsSource,
        deltas: dict[str, Delta],
        replaced: dict[str, str],
        facts: dict[str, Any],
        *,
        copied_embedding: bool = False,
    ) -> None:
        """``copied_embedding``: the adapter's embedding is a copy beside the base's, not a new content of it."""
        self._base = base
        self._adapter = adapter
        self._deltas = deltas
        self._replaced = replaced
        self._facts = facts
        self._last: tuple[str, npt.NDArray[np.float32], npt.NDArray[np.float32]] | None = None
        self._splits_embedding = copied_embedding or _EMBEDDING in deltas
        self._names = dict.fromkeys((*base.names(), *deltas, *replaced))
        if self.unties_head:
            self._names[_HEAD] = None

    @property
    def path(self) -> Path:
        """The adapter's weights file."""
        return self._adapter.paths[0]

    @property
    def unties_head(self) -> bool:
        """The merged model has an lm_head of its own where the base shares it with the embedding.

        PEFT trains a copy of an embedding (``modules_to_save``) or adds to what it gives (LoRA): a head that shares
        the base's embedding goes on with that.
        """
        return _HEAD not in self._base.names() and (_HEAD in self._names or self._splits_embedding)

    def describe(self) -> dict[str, Any]:
        """Facts for the manifest: name, rank, alpha, base model, number of changed tensors."""
        return dict(self._facts)

    def names(self) -> Iterable[str]:
        """All tensor names."""
        return self._names.keys()

    def info(self, name: str) -> TensorInfo:
        """Header of ``name``; raises CheckpointError if there is none."""
        if name in self._replaced:
            found = self._adapter.info(self._replaced[name])
            return TensorInfo(name, found.shape, found.dtype)
        if name not in self._names:
            raise missing_tensor(name, self._names)
        found = self._base.info(self._stored(name))
        return TensorInfo(name, found.shape, found.dtype)

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows ``start:stop`` of the merged tensor as float32. Raises what the base and the adapter raise."""
        check_rows(self.info(name), start, stop)
        if name in self._replaced:
            rows = self._adapter.read_rows(self._replaced[name], start, stop)
        else:
            rows = self._base.read_rows(self._stored(name), start, stop)
        delta = self._deltas.get(name)
        if delta is not None:
            a, b = self._factors(name, delta)
            change = a[:, start:stop].T @ b.T if delta.embedding else b[start:stop] @ a
            change *= np.float32(delta.scaling)
            rows += change
        return rows

    def grid(self, name: str) -> Grid | None:
        """The base's grid, for a tensor that the adapter leaves as it is."""
        changed = name in self._deltas or name in self._replaced
        return None if changed else grid_of(self._base, self._stored(name))

    def read_grid(self, name: str, start: int, stop: int) -> tuple[Scales, ZeroPoints]:
        """See ``GridSource``."""
        return read_grid(self._base, self._stored(name), start, stop)

    def close(self) -> None:
        """Close base and adapter."""
        self._adapter.close()
        self._base.close()

    def _stored(self, name: str) -> str:
        """Name in the base: a head that the base shares with its embedding starts out as the embedding."""
        return _EMBEDDING if name == _HEAD and self.unties_head else name

    def _factors(self, name: str, delta: Delta) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """A and B, kept for the tensor that is being read. Threads may load them twice, never wrongly."""
        last = self._last
        if last is None or last[0] != name:
            a = self._adapter.read_rows(delta.a, 0, self._adapter.info(delta.a).shape[0])
            b = self._adapter.read_rows(delta.b, 0, self._adapter.info(delta.b).shape[0])
            self._last = last = (name, a, b)
        return last[1], last[2]


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
        deltas, replaced = _sort_tensors(adapter, config)
        facts = _facts(directory, config, deltas, replaced)
        copied = _EMBEDDING in replaced and _saves_copy(config, _EMBEDDING)
        tied = bool(config.get("ensure_weight_tying"))
        source = LoraSource(base, adapter, deltas, replaced, facts, copied_embedding=copied and not tied)
        for name, delta in deltas.items():
            _check_shapes(source, adapter, name, delta)
        for name in replaced:
            _check_replacement(source, base, name)
    except BaseException:
        adapter.close()
        raise
    return source


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


def _sort_tensors(adapter: SafetensorsSource, config: dict[str, Any]) -> tuple[dict[str, Delta], dict[str, str]]:
    """Low-rank changes and whole replacements, both by the name of the tensor they concern."""
    sides: dict[tuple[str, bool], dict[str, str]] = {}
    replaced: dict[str, str] = {}
    for stored in adapter.names():
        if not stored.startswith(_PREFIX):
            raise UnsupportedModelError(f"The adapter has a tensor {stored}, which is not supported.", hint=_HINT)
        name = stored.removeprefix(_PREFIX)
        if match := _LORA.fullmatch(name):
            sides.setdefault((match["module"], match["embedding"] is not None), {})[match["side"]] = stored
        elif ".lora_" in name:
            raise UnsupportedModelError(f"The adapter has a tensor {stored}, which is not supported.", hint=_HINT)
        else:
            # modules_to_save, trained biases, and embeddings that were saved along.
            replaced[re.sub(r"\.(modules_to_save(\.default)?|base_layer)\.", ".", name)] = stored
    deltas: dict[str, Delta] = {}
    for (module, embedding), found in sides.items():
        if len(found) != 2:
            raise CheckpointError(f"The adapter has only one of lora_A and lora_B for {module}.", hint=_HINT)
        rank = adapter.info(found["A"]).shape[0]
        deltas[f"{module}.weight"] = Delta(found["A"], found["B"], _scaling(config, module, rank), embedding)
    if not deltas and not replaced:
        raise CheckpointError("The adapter changes no tensor.", hint="Pass a directory that PEFT saved.")
    return deltas, replaced


def _saves_copy(config: dict[str, Any], name: str) -> bool:
    """Whether ``modules_to_save`` names the module of this tensor (an embedding saved along is the base's, resized)."""
    module = name.rpartition(".")[0]
    saved = config.get("modules_to_save") or ()
    return any(isinstance(entry, str) and (module == entry or module.endswith(f".{entry}")) for entry in saved)


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


def _check_shapes(source: LoraSource, adapter: SafetensorsSource, name: str, delta: Delta) -> None:
    base = _base_shape(source, name)
    a, b = adapter.info(delta.a).shape, adapter.info(delta.b).shape
    found = (a[1], b[0]) if delta.embedding and len(a) == len(b) == 2 else (b[0], a[-1])
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or found != base:
        raise CheckpointError(
            f"The adapter changes {name} by {list(b)} x {list(a)}, but the tensor has shape {list(base)}.",
            hint="Use the base model that the adapter was trained on.",
        )


def _check_replacement(source: LoraSource, base: TensorSource, name: str) -> None:
    shape = source.info(name).shape
    expected = _base_shape(source, name) if name in base.names() or name == _HEAD else None
    if expected is None:
        raise CheckpointError(
            f"The adapter replaces {name}, which the base model does not have.",
            hint="Use the base model that the adapter was trained on.",
        )
    # More rows than before: tokens were added in training.
    grown = name in (_EMBEDDING, _HEAD) and shape[1:] == expected[1:]
    if shape != expected and not grown:
        raise CheckpointError(
            f"The adapter replaces {name} by shape {list(shape)}, the base model has {list(expected)}.",
            hint="Use the base model that the adapter was trained on.",
        )


def _base_shape(source: LoraSource, name: str) -> tuple[int, ...]:
    try:
        return source._base.info(source._stored(name)).shape  # the module's own class
    except CheckpointError as error:
        raise CheckpointError(
            f"The adapter changes {name}, which the base model does not have.",
            hint="Use the base model that the adapter was trained on.",
        ) from error


def _facts(
    directory: Path, config: dict[str, Any], deltas: dict[str, Delta], replaced: dict[str, str]
) -> dict[str, Any]:
    trained_on = config.get("base_model_name_or_path")
    if isinstance(trained_on, str) and (PurePath(trained_on).is_absolute() or trained_on.startswith(".")):
        trained_on = PurePath(trained_on).name  # a path of the machine it was trained on
    return {
        "name": directory.resolve().name,
        "base_model": trained_on,
        "rank": config.get("r"),
        "alpha": config.get("lora_alpha"),
        "rslora": bool(config.get("use_rslora")),
        "merged_tensors": len(deltas),
        "replaced_tensors": len(replaced),
    }
