"""A Hugging Face model directory as a ``Checkpoint``."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from edgedistill.checkpoint.normalize import EMBEDDING, normalize
from edgedistill.checkpoint.quantized import open_quantized
from edgedistill.checkpoint.safetensors import open_safetensors
from edgedistill.checkpoint.tokenizer.files import (
    read_chat_template,
    read_json,
    read_special_tokens,
    read_tokenizer_json,
)
from edgedistill.checkpoint.tokenizer.load import load_tokenizer
from edgedistill.checkpoint.types import Checkpoint, SourceInfo
from edgedistill.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgedistill.checkpoint.types import SpecialTokens, TensorSource

NO_END = (
    "No file of the model names an end token, and its chat template has none that is known: replies end at the token "
    "limit. Set eos_token_id in generation_config.json."
)
_EXTRA_FILES = re.compile(r"(README\.md|(LICENSE|LICENCE|NOTICE|COPYING)(\.\w+)?|USE_POLICY\.md)", re.IGNORECASE)
_MAX_EXTRA = 1 << 20


def load_directory(directory: Path, source: SourceInfo) -> Checkpoint:
    """Open the checkpoint in ``directory``.

    Raises CheckpointError for missing, damaged or inconsistent files and UnsupportedModelError for quantized
    checkpoints and tokenizers that cannot be read.
    """
    config = read_json(directory / "config.json")
    if not config:
        raise CheckpointError(
            f"{directory.name} has no config.json (or an empty one).",
            hint="Pass a directory with config.json, tokenizer.json and safetensors weights.",
        )
    generation_config = read_json(directory / "generation_config.json")
    tokenizer_json, special, template = read_tokenizer(directory, config, generation_config)
    extra = _read_extra(directory)
    stored = open_safetensors(directory)
    try:
        config, readable = open_quantized(config, stored)
        normalized = normalize(config, readable)
        config, tensors = normalized.config, normalized.tensors
        check_layers(config, tensors)
        check_vocabulary(tokenizer_json, tensors)
    except BaseException:
        stored.close()
        raise
    notes = normalized.notes if special.eos_token_ids else (*normalized.notes, NO_END)
    return Checkpoint(
        config=config,
        tensors=tensors,
        tokenizer_json=tokenizer_json,
        chat_template=template,
        special_tokens=special,
        generation_config=generation_config,
        source=dataclasses.replace(source, license=source.license or _license(extra)),
        weight_files=stored.paths,
        extra_files=extra,
        notes=notes,
    )


def read_tokenizer(
    directory: Path, config: Mapping[str, Any], generation_config: Mapping[str, Any]
) -> tuple[bytes, SpecialTokens, str | None]:
    """tokenizer.json, special tokens and chat template of ``directory``; raises as ``load_directory`` does."""
    tokenizer_config = read_json(directory / "tokenizer_config.json")
    tokenizer_json = read_tokenizer_json(directory, tokenizer_config)
    template = read_chat_template(directory, tokenizer_config)
    special = read_special_tokens(directory, tokenizer_json, config, generation_config, tokenizer_config, template)
    return tokenizer_json, special, template


def check_layers(config: Mapping[str, Any], tensors: TensorSource) -> None:
    """Raise CheckpointError if ``config`` claims more layers than the weights can have tensors for.

    What follows loops over the layers, so an absurd number must not get through.
    """
    layers, found = config.get("num_hidden_layers"), sum(1 for _ in tensors.names())
    if isinstance(layers, int) and layers > found:
        raise CheckpointError(
            f"The config claims {layers} layers, the weights have {found} tensors in all.",
            hint="Check that config.json belongs to these weights and that no shard is missing.",
        )


def check_vocabulary(tokenizer_json: bytes, tensors: TensorSource) -> None:
    """Raise CheckpointError if the tokenizer has an id that the embedding has no row for.

    More rows than tokens are normal: embeddings are padded.
    """
    if EMBEDDING not in tensors.names():
        return  # another layout of names: check_tensors reports what is missing
    rows = tensors.info(EMBEDDING).shape[0]
    token, index = max(load_tokenizer(tokenizer_json).get_vocab().items(), key=lambda item: item[1], default=("", -1))
    if index >= rows:
        raise CheckpointError(
            f"The tokenizer has token {token!r} with id {index}, but {EMBEDDING} has {rows} rows.",
            hint="Check that tokenizer.json belongs to these weights (were tokens added after training?).",
        )


def _read_extra(directory: Path) -> dict[str, bytes]:
    try:
        found = [path for path in sorted(directory.iterdir()) if _EXTRA_FILES.fullmatch(path.name) and path.is_file()]
        return {path.name: path.read_bytes() for path in found if path.stat().st_size <= _MAX_EXTRA}
    except OSError as error:
        raise CheckpointError(f"{directory}: cannot be read ({error.strerror}).") from error


def _license(extra: dict[str, bytes]) -> str | None:
    """``license:`` from the front matter of the model card."""
    card = extra.get("README.md", b"").decode("utf-8", errors="replace")
    front = re.match(r"---\s*\n(.*?)\n---", card, re.DOTALL)
    line = re.search(r"^license:[ \t]*([\w.\-+]+)[ \t]*$", front.group(1), re.MULTILINE) if front else None
    return line.group(1) if line else None
