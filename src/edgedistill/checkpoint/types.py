"""What an opened checkpoint is, whatever it was read from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from edgedistill.catalog.reasoning import find_grammar
from edgedistill.checkpoint.raw_file import sha256_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt

    from edgedistill.catalog.reasoning import ReasoningGrammar
    from edgedistill.progress import Progress

SourceKind = Literal["builtin", "hub", "directory", "gguf"]
SAMPLING_KEYS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
"""Keys of generation_config.json that both transformers and ``GenerationSettings`` know."""


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """Where a checkpoint came from, for the manifest; holds no path of this machine.

    Attributes:
        kind: ``builtin``, ``hub``, ``directory`` or ``gguf``.
        name: Built-in name, hub id, or the last component of the path.
        revision: Commit hash of a hub repository.
        sha256: Hash of the weights as ``Checkpoint.hash_source`` defines it; None until it was computed.
        license: Identifier that the model card or the GGUF metadata states.
        adapter: Name, rank and scaling of a merged LoRA adapter.
    """

    kind: SourceKind
    name: str
    revision: str | None = None
    sha256: str | None = None
    license: str | None = None
    adapter: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Tokens with a meaning. ``add_bos``: a prompt starts with ``bos_token_id``.

    Text is encoded without special tokens and ``bos_token_id`` is put in front, unless a chat template wrote it.
    """

    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    bos_token_id: int | None
    pad_token_id: int | None
    eos_token_ids: tuple[int, ...]
    add_bos: bool


@dataclass(slots=True)
class Checkpoint:
    """A model as Hugging Face would store it; a context manager that closes its files.

    Nothing in it changes but ``source``, which gets its hash once ``hash_source`` has read the files.

    Attributes:
        config: Content of config.json (rebuilt from metadata for GGUF).
        tensors: Lazy tensors under Hugging Face names, an adapter already merged.
        tokenizer_json: Content of tokenizer.json (rebuilt for GGUF), UTF-8.
        chat_template: Jinja source of the default template.
        special_tokens: Beginning, end and padding.
        generation_config: Content of generation_config.json, empty if there is none.
        source: Where all this came from.
        weight_files: Files that hold the weights, adapter included: what ``hash_source`` hashes.
        extra_files: Model card and license texts by file name.
    """

    config: dict[str, Any]
    tensors: TensorSource
    tokenizer_json: bytes
    chat_template: str | None
    special_tokens: SpecialTokens
    generation_config: dict[str, Any]
    source: SourceInfo
    weight_files: tuple[Path, ...]
    extra_files: dict[str, bytes] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def hash_source(self, progress: Progress | None = None) -> str:
        """SHA-256 (hex) over the lines ``name<TAB>size<TAB>sha256`` of all weights files, in order of their names.

        Reads every byte of the weights once, streaming; the result is kept in ``source.sha256``. Raises
        CheckpointError if a file cannot be read.
        """
        if self.source.sha256 is not None:
            return self.source.sha256
        files = sorted(self.weight_files, key=lambda path: path.name)
        sizes = [path.stat().st_size for path in files]
        if progress is not None:
            progress.begin("hash", sum(sizes), "bytes")
        total = hashlib.sha256()
        for path, size in zip(files, sizes, strict=True):
            total.update(f"{path.name}\t{size}\t{sha256_file(path, progress)}\n".encode())
        if progress is not None:
            progress.end()
        self.source = dataclasses.replace(self.source, sha256=total.hexdigest())
        return total.hexdigest()

    def close(self) -> None:
        """Close the weights files."""
        self.tensors.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Header of one tensor: Hugging Face ``name``, ``shape`` and the stored type (``F32``, ``BF16``, ``Q4_1``, ...)."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


class TensorSource(Protocol):
    """Read access to a checkpoint, tensor by tensor and row by row. Names are Hugging Face's, for GGUF too."""

    def names(self) -> Iterable[str]:
        """All tensor names."""
        ...

    def info(self, name: str) -> TensorInfo:
        """Header of ``name``; raises CheckpointError if there is none."""
        ...

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows ``start:stop`` along the first axis as a new float32 array [stop-start, ...] (exact for fp16/bf16).

        Raises CheckpointError on NaN or Inf values and on a file shorter than its header says.
        """
        ...

    def close(self) -> None:
        """Release the mapped files."""
        ...


def grammar_of(checkpoint: Checkpoint) -> ReasoningGrammar:
    """The reasoning grammar of a checkpoint."""
    added = json.loads(checkpoint.tokenizer_json).get("added_tokens") or ()
    return find_grammar(checkpoint.chat_template, {token["content"] for token in added}, checkpoint.source.name)


def recommended(generation_config: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling settings that the model's author recommends in generation_config.json.

    ``do_sample: false`` or absent says nothing about temperature (it is what transformers writes by default), so only
    the settings themselves count.
    """
    found = {key: generation_config[key] for key in SAMPLING_KEYS if generation_config.get(key) is not None}
    top_k = found.get("top_k")
    return found | ({"top_k": int(top_k)} if isinstance(top_k, float) and top_k.is_integer() else {})
