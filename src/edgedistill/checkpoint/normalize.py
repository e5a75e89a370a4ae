"""Brings checkpoints to one layout: the text part of a multimodal model, names without the prefixes of training
wrappers.

Behind it tensors are called as transformers' text models call them: ``model.*`` and ``lm_head.weight``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.checkpoint.grid import grid_of, read_grid
from edgedistill.checkpoint.text_defaults import TEXT_DEFAULTS
from edgedistill.checkpoint.types import TensorInfo
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from edgedistill.checkpoint.grid import Grid, Scales, ZeroPoints
    from edgedistill.checkpoint.types import TensorSource

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
_EMBED = "embed_tokens.weight"
_SLICE = 4 << 20
_TIE = "tie_word_embeddings"
NO_TEXT = re.compile(
    r"(^|\.)(vision\w*|visual\w*|image\w*|audio\w*|patch_\w+|embed_vision|embed_audio|multi_modal_projector|mm_\w+"
    r"|connector|projector|mlp1)(\.|$)"
)
"""Modules of a multimodal model that its text model does not read."""
_GUESSES = re.compile(r"(^|\.)mtp\.")
"""Layers that guess further tokens (Qwen3.5), which transformers does not load."""
_SCORES = {"score", "classifier", "classification_head", "regression_head", "reward_head", "rm_head", "v_head",
           "value_head", "qa_outputs"}  # fmt: skip
_LAYERS = re.compile(r"(^|\.)layers\.\d")
# transformers 4 puts the wrapper's name behind each "model" of a Gemma 3n's text model that it saves by itself.
_RENAMED_TWICE = ("per_layer_model.language_model_projection.", "per_layer_model_projection.")
# What the text part is called where it is a module of a larger model, and what the same text model is called alone.
TEXT_TYPES = {
    "qwen2_vl": "qwen2",
    "qwen2_vl_text": "qwen2",
    "qwen2_5_vl": "qwen2",
    "qwen2_5_vl_text": "qwen2",
    "qwen3_vl": "qwen3",
    "qwen3_vl_text": "qwen3",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "gemma4": "gemma4_text",
}


@dataclass(frozen=True, slots=True)
class Normalized:
    """A config and tensors in one spelling, and sentences for the user about what was not obvious."""

    config: dict[str, Any]
    tensors: TensorSource
    notes: tuple[str, ...] = ()


class RenamedTensors:
    """A ``TensorSource`` under other names; what has no new name is not there."""

    def __init__(self, source: TensorSource, stored: Mapping[str, str]) -> None:
        """``stored``: the name in ``source`` by new name."""
        self._source = source
        self._stored = stored

    def names(self) -> Iterable[str]:
        """All new names."""
        return self._stored.keys()

    def info(self, name: str) -> TensorInfo:
        """Header of ``name``; raises CheckpointError if there is none."""
        found = self._source.info(self._stored.get(name, name))
        return TensorInfo(name, found.shape, found.dtype)

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows ``start:stop`` as float32; raises as the source does."""
        return self._source.read_rows(self._stored.get(name, name), start, stop)

    def grid(self, name: str) -> Grid | None:
        """The grid of the stored tensor."""
        return grid_of(self._source, self._stored.get(name, name))

    def read_grid(self, name: str, start: int, stop: int) -> tuple[Scales, ZeroPoints]:
        """See ``GridSource``."""
        return read_grid(self._source, self._stored.get(name, name), start, stop)

    def close(self) -> None:
        """Close the source."""
        self._source.close()


def normalize(config: Mapping[str, Any], tensors: TensorSource) -> Normalized:
    """The text model of ``config`` and ``tensors``.

    Raises:
        CheckpointError: Two embeddings or heads, so that the text model cannot be told from another.
        UnsupportedModelError: A reward model or classifier: its head gives no tokens.
    """
    text = text_config(config)
    names = list(tensors.names())
    _refuse_other_heads(names)
    guesses = [name for name in names if _GUESSES.search(name)]
    stored, outside = _rename([name for name in names if not _GUESSES.search(name)])
    notes = []
    if text is not config:
        dropped = [name for name in outside if NO_TEXT.search(name)]
        notes.append(f"The text model of a {config.get('model_type')} checkpoint is exported, without images or sound "
                     f"({len(dropped)} tensors left out).")  # fmt: skip
        outside = [name for name in outside if not NO_TEXT.search(name)]
    if guesses:
        notes.append(f"{len(guesses)} tensors of layers that guess further tokens are left out.")
    stored |= {name: name for name in outside}
    source = tensors if list(stored.items()) == [(name, name) for name in names] else RenamedTensors(tensors, stored)
    result = dict(text)
    if HEAD in stored and EMBEDDING in stored and result.get(_TIE, True):
        if _equal(source, EMBEDDING, HEAD):
            if result.get(_TIE):
                source = RenamedTensors(tensors, {name: old for name, old in stored.items() if name != HEAD})
        else:
            if result.get(_TIE):
                notes.append("config.json ties the head to the embedding, but the checkpoint has a different "
                             "lm_head.weight: the head keeps its own weights.")  # fmt: skip
            result[_TIE] = False
    elif HEAD not in stored and text is not config and config.get(_TIE):
        result[_TIE] = True  # the whole says so, and its text part has a head of its own nowhere
    return Normalized(result, source, tuple(notes))


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The config of the text model: ``config`` itself, or its part with what only the whole states."""
    kind = str(config.get("model_type"))
    text = config.get("text_config")
    if isinstance(text, dict) and text:
        inherited = (
            _TIE,
            "bos_token_id",
            "eos_token_id",
            "pad_token_id",
            "torch_dtype",
            "dtype",
            "quantization_config",
        )
        own = str(text.get("model_type") or kind)
        merged = {key: config[key] for key in inherited if key in config}
        whole = {**TEXT_DEFAULTS.get(own, {}), **merged, **text}
        return _plain_rope(whole | {"model_type": TEXT_TYPES.get(own, own)})
    if kind in TEXT_TYPES and "hidden_size" in config:
        return _plain_rope({**TEXT_DEFAULTS.get(kind, {}), **config, "model_type": TEXT_TYPES[kind]})
    return config


def _plain_rope(config: dict[str, Any]) -> dict[str, Any]:
    """Multimodal RoPE gives text the same positions on all its axes, which is plain RoPE."""
    for key in ("rope_scaling", "rope_parameters"):
        rope = config.get(key)
        if isinstance(rope, dict) and "mrope_section" in rope:
            rest = {k: v for k, v in rope.items() if not k.startswith("mrope") and k not in ("type", "rope_type")}
            config[key] = {**rest, "rope_type": "default"} if rest else None
    return config


def _rename(names: list[str]) -> tuple[dict[str, str], list[str]]:
    """Stored name by new name for the text model, and the names that are not part of it."""
    bodies = [name.removesuffix(_EMBED) for name in names if name == _EMBED or name.endswith(f".{_EMBED}")]
    if len(bodies) > 1:
        raise CheckpointError(
            f"The checkpoint has {len(bodies)} embeddings ({', '.join(f'{body}{_EMBED}' for body in bodies)}); "
            "expected those of one text model.",
            hint="Save the text model by itself and export that.",
        )
    heads = [name for name in names if name == HEAD or name.endswith(f".{HEAD}")]
    if len(heads) > 1:
        raise CheckpointError(f"The checkpoint has {len(heads)} heads ({', '.join(heads)}); expected one.")
    if not bodies:
        return {}, names
    body = bodies[0]
    inside = [name for name in names if name.startswith(body) and name not in heads]
    stored = {f"model.{name.removeprefix(body).replace(*_RENAMED_TWICE)}": name for name in inside}
    stored |= dict.fromkeys([HEAD] if heads else [], "".join(heads))
    taken = set(stored.values())
    if body == "":  # a model saved without its head: everything is its body
        return stored, []
    return stored, [name for name in names if name not in taken]


def _refuse_other_heads(names: Iterable[str]) -> None:
    for name in names:
        if not _LAYERS.search(name) and not NO_TEXT.search(name) and _SCORES.intersection(name.split(".")[:-1]):
            raise UnsupportedModelError(
                f"The checkpoint has {name}: it scores or classifies texts, and gives no tokens.",
                hint="Export the language model that it was made from.",
            )


def _equal(source: TensorSource, first: str, second: str) -> bool:
    shape = source.info(first).shape
    if source.info(second).shape != shape or len(shape) != 2:
        return False
    step = max(1, _SLICE // max(1, shape[1]))
    return all(
        np.array_equal(
            source.read_rows(first, start, min(start + step, shape[0])),
            source.read_rows(second, start, min(start + step, shape[0])),
        )
        for start in range(0, shape[0], step)
    )
