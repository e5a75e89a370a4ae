"""``--model``: a path, a built-in name or a hub id, opened as a ``Checkpoint``."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.catalog import builtin as catalog
from edgedistill.checkpoint.types import Checkpoint, SourceInfo, SourceKind, SpecialTokens
from edgedistill.errors import CheckpointError, ModelNotFoundError, UsageError
from edgedistill.extras import require_export

if TYPE_CHECKING:
    from edgedistill.progress import Progress

__all__ = ["Checkpoint", "SourceInfo", "SourceKind", "SpecialTokens", "open_checkpoint"]

_HUB_ID = re.compile(r"(?P<repo>[\w][\w.\-]*/[\w][\w.\-]*)(?:@(?P<revision>[\w.\-/]+))?")


def open_checkpoint(
    model: str,
    *,
    adapter: Path | None = None,
    revision: str | None = None,
    offline: bool = False,
    progress: Progress | None = None,
) -> Checkpoint:
    """Open ``model`` and merge ``adapter`` into it while it is read.

    Args:
        model: In this order: an existing directory or ``.gguf`` file, a built-in name, a hub id ``org/name`` with an
            optional ``@revision``.
        adapter: PEFT LoRA directory.
        revision: Branch, tag or commit of a hub id.
        offline: Use only what the hub's cache holds.
        progress: Receives the progress of a download.

    Raises ModelNotFoundError if nothing has that name, CheckpointError for damaged or inconsistent files,
    UnsupportedModelError for formats that are not read.
    """
    checkpoint = _open_base(model, revision, offline, progress)
    if adapter is None:
        return checkpoint
    try:
        return _with_adapter(checkpoint, adapter)
    except BaseException:
        checkpoint.close()
        raise


def _with_adapter(checkpoint: Checkpoint, adapter: Path) -> Checkpoint:
    """``checkpoint`` with the adapter merged, and with the tokenizer that was saved beside the adapter, if any."""
    from edgedistill.checkpoint.hf_directory import check_vocabulary, read_tokenizer
    from edgedistill.checkpoint.lora import open_adapter
    from edgedistill.checkpoint.normalize import EMBEDDING

    merged = open_adapter(adapter, checkpoint.tensors)
    config = dict(checkpoint.config)
    if merged.unties_head:
        config["tie_word_embeddings"] = False
    if EMBEDDING in merged.names():
        config["vocab_size"] = merged.info(EMBEDDING).shape[0]
    tokenizer_json, template = checkpoint.tokenizer_json, checkpoint.chat_template
    special = checkpoint.special_tokens
    if (adapter / "tokenizer.json").exists():
        tokenizer_json, special, own_template = read_tokenizer(adapter, config, checkpoint.generation_config)
        template = own_template or template
    check_vocabulary(tokenizer_json, merged)
    return dataclasses.replace(
        checkpoint,
        config=config,
        tensors=merged,
        tokenizer_json=tokenizer_json,
        chat_template=template,
        special_tokens=special,
        source=dataclasses.replace(checkpoint.source, adapter=merged.describe()),
        weight_files=(*checkpoint.weight_files, merged.path),
        notes=(*checkpoint.notes, *merged.notes),
    )


def hub_id(name: str) -> tuple[str, str | None] | None:
    """Repository and revision where ``name`` has the form of a Hub id, ``org/name`` or ``org/name@revision``."""
    match = _HUB_ID.fullmatch(name)
    return None if match is None or name.endswith(".gguf") else (match["repo"], match["revision"])


def _open_base(model: str, revision: str | None, offline: bool, progress: Progress | None) -> Checkpoint:
    if not model:
        raise UsageError("No model was named.", hint=_known())
    path = Path(model).expanduser()
    if path.exists():
        _refuse_revision(model, revision)
        return _open_path(path, offline=offline)
    if (installed := catalog.resolve(model)) is not None:
        _refuse_revision(model, revision)
        return _open_path(installed, SourceInfo("builtin", model, license=_catalog_license(model)))
    named = hub_id(model)
    if named is None:
        raise _not_found(model)
    repository, own_revision = named
    if revision and own_revision and revision != own_revision:
        raise UsageError(f"Two revisions were given: {own_revision} and {revision}.")
    from edgedistill.checkpoint.hub import download

    snapshot = download(repository, own_revision or revision, offline=offline, progress=progress)
    return _open_path(snapshot.path, SourceInfo("hub", repository, revision=snapshot.commit))


def _open_path(path: Path, source: SourceInfo | None = None, *, offline: bool = False) -> Checkpoint:
    name = path.resolve().name
    if path.is_dir():
        from edgedistill.checkpoint.hf_directory import load_directory
        from edgedistill.checkpoint.locate import locate

        located = locate(path)
        if located.base is not None:
            checkpoint = open_checkpoint(located.base, adapter=located.directory, offline=offline)
        else:
            checkpoint = load_directory(located.directory, source or SourceInfo("directory", name))
        return dataclasses.replace(checkpoint, notes=(*checkpoint.notes, located.note)) if located.note else checkpoint
    if path.suffix == ".gguf" or _is_gguf(path):
        require_export(f"Reading {path.name}")
        from edgedistill.checkpoint.gguf.open import load_gguf

        return load_gguf(path, source or SourceInfo("gguf", name))
    raise CheckpointError(
        f"{path} is neither a directory nor a GGUF file.",
        hint="Pass the directory that holds config.json and the safetensors weights, or a .gguf file.",
    )


def _is_gguf(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == b"GGUF"
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error


def _refuse_revision(model: str, revision: str | None) -> None:
    if revision is not None:
        raise UsageError(f"--revision is for hub repositories; {model} is on this machine.", hint="Leave it out.")


def _catalog_license(name: str) -> str | None:
    model = catalog.find(name)
    return model.license if model else None


def _known() -> str:
    return f"Built-in models are {', '.join(model.name for model in catalog.MODELS)}."


def _not_found(model: str) -> ModelNotFoundError:
    if os.sep in model or model.endswith(".gguf"):
        return ModelNotFoundError(f"{model}: no such file or directory.", hint=_beside(Path(model).expanduser()))
    names = [entry.name for entry in catalog.MODELS]
    close = difflib.get_close_matches(model, names, n=1, cutoff=0.5)
    nearest = f"Did you mean {close[0]}?" if close else _known()
    return ModelNotFoundError(
        f"{model} is not a path, a built-in model or a hub id (org/name).",
        hint=f"{nearest} See: edgedistill models list",
    )


def _beside(path: Path) -> str:
    """What lies where a missing path was expected."""
    try:
        siblings = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return f"The directory {path.parent} does not exist either."
    close = difflib.get_close_matches(path.name, siblings, n=1)
    return f"Did you mean {path.parent / close[0]}?" if close else f"Check what {path.parent} holds."
