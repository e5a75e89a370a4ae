"""A GGUF file as a ``Checkpoint``: what a Hugging Face directory of the same model would hold."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgedistill.checkpoint.gguf.config import build_config, find_architecture, map_tensors, metadata_tensors
from edgedistill.checkpoint.gguf.header import open_gguf
from edgedistill.checkpoint.gguf.rope import ROPE_FACTORS
from edgedistill.checkpoint.gguf.tensors import GgufSource, read_stored
from edgedistill.checkpoint.gguf.tokenizer import (
    build_tokenizer,
    read_chat_template,
    read_generation_config,
    read_special_tokens,
    tokenizer_notes,
)
from edgedistill.checkpoint.hf_directory import NO_END, check_layers, check_vocabulary
from edgedistill.checkpoint.types import Checkpoint, SourceInfo
from edgedistill.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from edgedistill.checkpoint.gguf.header import GgufHeader
    from edgedistill.checkpoint.raw_file import RawFile


def load_gguf(path: Path, source: SourceInfo) -> Checkpoint:
    """Open the GGUF file ``path``.

    Raises CheckpointError for damaged or inconsistent files, UnsupportedModelError for architectures, tokenizers and
    features that are not known.
    """
    header, file = open_gguf(path)
    try:
        architecture = find_architecture(header)
        config = build_config(header, architecture, _rope_factors(header, file))
        parts = map_tensors(header, architecture, config)
        tensors = GgufSource(file, parts, metadata_tensors(header, architecture))
        check_layers(config, tensors)
        tokenizer_json = build_tokenizer(header.metadata)
        check_vocabulary(tokenizer_json, tensors)
        special = read_special_tokens(header.metadata)
        config |= {
            "bos_token_id": special.bos_token_id,
            "eos_token_id": list(special.eos_token_ids),
            "pad_token_id": special.pad_token_id,
        }
        stated = header.metadata.get("general.license")
        return Checkpoint(
            config=config,
            tensors=tensors,
            tokenizer_json=tokenizer_json,
            chat_template=read_chat_template(header.metadata),
            special_tokens=special,
            generation_config=read_generation_config(header.metadata, special),
            source=dataclasses.replace(source, license=source.license or (str(stated) if stated else None)),
            weight_files=(path,),
            notes=(*tokenizer_notes(header.metadata), *(() if special.eos_token_ids else (NO_END,))),
        )
    except BaseException:
        file.close()
        raise


def _rope_factors(header: GgufHeader, file: RawFile) -> dict[str, npt.NDArray[np.float32]]:
    found = {}
    for name in ROPE_FACTORS:
        if (stored := header.tensors.get(name)) is None:
            continue
        if len(stored.shape) != 1 or stored.shape[0] > 4096:
            raise CheckpointError(f"{name} has shape {list(stored.shape)}, expected a short vector.")
        found[name] = read_stored(file, stored, 0, 1).reshape(-1)
    return found
