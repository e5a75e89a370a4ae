"""Writes the small files of a bundle: tokenizer, chat template, generation defaults, configs, model card."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgedistill.bundle import bundle as files
from edgedistill.checkpoint.types import SAMPLING_KEYS, recommended
from edgedistill.errors import CheckpointError, GenerationError
from edgedistill.export import genai_config as genai
from edgedistill.export.model_card import model_card
from edgedistill.runtime.settings import GenerationSettings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgedistill.architecture.spec import ModelSpec
    from edgedistill.bundle.manifest import Manifest
    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.profile.profile import Profile

ORIGINAL_CARD = "ORIGINAL_README.md"
_NOT_IN_CONFIG = ("auto_map", "quantization_config", "dtype", "torch_dtype", "transformers_version", "_name_or_path")


def generation_defaults(profile: Profile, generation_config: Mapping[str, Any]) -> dict[str, Any]:
    """The profile's defaults, overruled by what the model's author recommends in generation_config.json.

    Raises:
        CheckpointError: A value that is no number, or out of range.
    """
    profile_values = profile.to_dict()["generation"]
    defaults = {key: value for key, value in profile_values.items() if value is not None}
    defaults |= recommended(generation_config)
    try:
        GenerationSettings.from_defaults(defaults)
    except GenerationError as error:
        raise CheckpointError(
            f"generation_config.json cannot be used: {error}", hint="Correct it there, or take the key out."
        ) from error
    return defaults


def write_texts(directory: Path, checkpoint: Checkpoint, profile: Profile, context_length: int) -> None:
    """Write tokenizer, chat template and generation defaults, and Hugging Face's config files for other programs."""
    (directory / files.TOKENIZER).write_bytes(checkpoint.tokenizer_json)
    if checkpoint.chat_template is not None:
        (directory / files.CHAT_TEMPLATE).write_text(checkpoint.chat_template, encoding="utf-8")
    defaults = generation_defaults(profile, checkpoint.generation_config)
    _write_json(directory / files.GENERATION, defaults)
    _write_json(directory / files.CONFIG, hub_config(checkpoint))
    _write_json(directory / files.GENERATION_CONFIG, hub_generation_config(checkpoint, defaults))
    tokenizer_config = genai.tokenizer_config(checkpoint.special_tokens, checkpoint.chat_template, context_length)
    _write_json(directory / files.TOKENIZER_CONFIG, tokenizer_config)


def hub_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Content of config.json: the checkpoint's, without keys about its own weights or code to run."""
    config = {key: value for key, value in checkpoint.config.items() if key not in _NOT_IN_CONFIG}
    special = checkpoint.special_tokens
    config["eos_token_id"] = _one_or_many(special.eos_token_ids)
    for key in ("bos_token_id", "pad_token_id"):
        if (token := getattr(special, key)) is not None:
            config[key] = token
    return config


def hub_generation_config(checkpoint: Checkpoint, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Content of generation_config.json: the sampling ``defaults`` of the bundle and the model's special tokens."""
    sampling = {key: defaults[key] for key in SAMPLING_KEYS if key in defaults}
    greedy = not sampling.get("temperature")
    if greedy:
        sampling = {key: value for key, value in sampling.items() if key == "repetition_penalty"}
    special = checkpoint.special_tokens
    ids = {"bos_token_id": special.bos_token_id, "pad_token_id": special.pad_token_id}
    found = {"do_sample": not greedy, **sampling, "eos_token_id": _one_or_many(special.eos_token_ids), **ids}
    return {key: value for key, value in found.items() if value is not None}


def _one_or_many(tokens: tuple[int, ...]) -> int | list[int] | None:
    return tokens[0] if len(tokens) == 1 else (list(tokens) or None)


def write_genai(
    directory: Path, checkpoint: Checkpoint, profile: Profile, spec: ModelSpec, context_length: int
) -> None:
    """Write genai_config.json for onnxruntime-genai, unless the model has no graph for it."""
    if not spec.is_uniform:
        return
    generation = generation_defaults(profile, checkpoint.generation_config)
    config = genai.genai_config(spec, checkpoint.special_tokens, context_length=context_length, generation=generation)
    _write_json(directory / files.GENAI_CONFIG, config)


def write_card(directory: Path, manifest: Manifest, extra_files: Mapping[str, bytes]) -> None:
    """Write the bundle's own README.md and copy the original's card and licence texts."""
    for name, content in extra_files.items():
        (directory / (ORIGINAL_CARD if name.lower() == "readme.md" else name)).write_bytes(content)
    known = genai.reads_tokenizer((directory / files.TOKENIZER).read_bytes())
    (directory / files.MODEL_CARD).write_text(model_card(manifest, genai_reads=known), encoding="utf-8")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
