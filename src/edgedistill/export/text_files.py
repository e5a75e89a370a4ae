"""The small files of a bundle: tokenizer, chat template, generation defaults, genai_config.json, model card."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edgedistill.bundle import bundle as files
from edgedistill.checkpoint.generation import recommended
from edgedistill.errors import CheckpointError, GenerationError
from edgedistill.export import genai_config as genai
from edgedistill.runtime.settings import GenerationSettings
from edgedistill.units import format_bytes, format_count

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgedistill.architecture.spec import ModelSpec
    from edgedistill.bundle.manifest import Manifest
    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.profile.profile import Profile

ORIGINAL_CARD = "ORIGINAL_README.md"


_GENAI_NOTE = (
    "The directory also opens in onnxruntime-genai: model-genai.onnx is a second graph over the same weights.",
    "",
)


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
    """Write tokenizer, chat template and generation defaults."""
    (directory / files.TOKENIZER).write_bytes(checkpoint.tokenizer_json)
    if checkpoint.chat_template is not None:
        (directory / files.CHAT_TEMPLATE).write_text(checkpoint.chat_template, encoding="utf-8")
    _write_json(directory / files.GENERATION, generation_defaults(profile, checkpoint.generation_config))
    tokenizer_config = genai.tokenizer_config(checkpoint.special_tokens, checkpoint.chat_template, context_length)
    _write_json(directory / files.TOKENIZER_CONFIG, tokenizer_config)


def write_genai(
    directory: Path, checkpoint: Checkpoint, profile: Profile, spec: ModelSpec, context_length: int
) -> None:
    """Write what onnxruntime-genai reads beside its graph."""
    generation = generation_defaults(profile, checkpoint.generation_config)
    config = genai.genai_config(spec, checkpoint.special_tokens, context_length=context_length, generation=generation)
    _write_json(directory / files.GENAI_CONFIG, config)


def write_card(directory: Path, manifest: Manifest, extra_files: Mapping[str, bytes]) -> None:
    """Write the bundle's own README.md and copy the original's card and licence texts."""
    for name, content in extra_files.items():
        (directory / (ORIGINAL_CARD if name.lower() == "readme.md" else name)).write_bytes(content)
    (directory / files.MODEL_CARD).write_text(model_card(manifest), encoding="utf-8")


def model_card(manifest: Manifest) -> str:
    """Markdown card with front matter: what the bundle is, how it was quantized, how to run it."""
    source, model = manifest.source, manifest.model
    front = {
        "library_name": "edgedistill",
        "base_model": source.get("name"),
        "base_model_revision": source.get("revision"),
        "license": source.get("license"),
        "tags": ["onnx", "edgedistill", model.family],
    }
    groups: dict[str, list[int]] = {}
    for weight in manifest.weights:
        elements = 1
        for size in weight.shape:
            elements *= size
        entry = groups.setdefault(weight.format.label(), [0, 0, 0])
        entry[0] += 1
        entry[1] += elements
        entry[2] += weight.nbytes
    rows = [
        f"| {label} | {count} | {format_count(elements)} | {format_bytes(nbytes)} | {8 * nbytes / elements:.2f} |"
        for label, (count, elements, nbytes) in groups.items()
    ]
    adapter = f", LoRA adapter {source['adapter'].get('name', 'merged')}" if source.get("adapter") else ""
    return "\n".join(
        [
            "---",
            *(f"{key}: {json.dumps(value)}" for key, value in front.items() if value is not None),
            "---",
            "",
            f"# {source.get('name', '?')} for {manifest.profile.get('name', 'an unnamed profile')}",
            "",
            f"A {model.family} model with {format_count(manifest.parameters)} parameters at "
            f"{manifest.bits_per_weight:.2f} bits per weight, context {model.context_length} tokens{adapter}.",
            f"Source hash `{source.get('sha256') or 'not recorded'}`; every file's SHA-256 is in manifest.json.",
            "",
            "| format | weights | parameters | bytes | bits per weight |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "Run it, with edgedistill installed:",
            "",
            "```sh",
            'edgedistill run . "your question"',
            "```",
            "",
            *_GENAI_NOTE[: 2 * (model.signature == "edgedistill")],
        ]
    )


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
