"""The artefact on disk: a directory with a manifest that names every file with its size and SHA-256.

Opening checks the sizes (cheap, always) or the hashes (``check="full"``). Writing happens in a staging directory
beside the target that becomes the bundle by one rename; see ``bundle/staging.py``.

Must not know: how a bundle was made, how it is run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from edgedistill.bundle.manifest import FileEntry, Manifest
from edgedistill.errors import BundleError
from edgedistill.progress import NullProgress, Progress

MANIFEST = "manifest.json"
MODEL = "model.onnx"
PREFILL_MODEL = "model-prefill.onnx"
GENAI_MODEL = "model-genai.onnx"
WIDENED = "widened.json"
WIDENED_MODELS = {MODEL: "model-widened.onnx", PREFILL_MODEL: "model-prefill-widened.onnx"}
"""By graph: the one that stands for it where the runtime supplies its matrices (see ``widened.py``)."""
GENAI_CONFIG = "genai_config.json"
WEIGHTS = "weights.bin"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
GENERATION = "generation.json"
MODEL_CARD = "README.md"

Check = Literal["size", "full"]
_HASH_CHUNK = 4 << 20
_READ_ONCE = (".onnx", ".json", ".jinja", ".md", ".txt", ".model")
"""Endings of files that are read when a model is loaded and never again."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: its directory and manifest. All files were present with the right size when it was opened."""

    path: Path
    manifest: Manifest

    @staticmethod
    def open(path: str | Path, *, check: Check = "size", progress: Progress | None = None) -> Bundle:
        """Read the manifest in ``path`` and check its files.

        Args:
            path: Bundle directory.
            check: ``size`` compares file sizes, ``full`` also SHA-256.
            progress: Receives bytes while hashing.

        Raises:
            BundleError: No bundle there, a file missing, altered or of another size, or a newer schema.
        """
        root = Path(path)
        if not root.is_dir():
            found = "a file" if root.exists() else "nothing"
            raise BundleError(
                f"Expected a bundle directory at {root}, found {found}.",
                hint="Make one with: edgedistill export tiny-reasoner -o my-bundle",
            )
        manifest_path = root / MANIFEST
        if not manifest_path.is_file():
            raise BundleError(
                f"{root} has no {MANIFEST}, so it is not a finished edgedistill bundle.",
                hint="Make one with: edgedistill export MODEL -o DIR",
            )
        try:
            text = manifest_path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BundleError(f"Cannot read {manifest_path}: {error}.") from error
        bundle = Bundle(root, Manifest.from_json(text))
        for entry in bundle.manifest.files:
            _check_size(root, entry)
        if check == "full":
            bundle.verify_hashes(progress)
        return bundle

    def verify_hashes(self, progress: Progress | None = None) -> None:
        """Compare every file's SHA-256 with the manifest; raises BundleError naming the first that differs."""
        progress = progress or NullProgress()
        progress.begin("checking hashes", sum(f.size for f in self.manifest.files), "bytes")
        for entry in self.manifest.files:
            found = hash_file(self.path / entry.name, progress)
            if found != entry.sha256:
                raise BundleError(
                    f"{entry.name} was altered: SHA-256 {found[:16]}… found, {entry.sha256[:16]}… in the manifest.",
                    hint="Copy the bundle again or export it again.",
                )
        progress.end()

    def file(self, name: str) -> Path:
        """Path of a file that the manifest lists; raises BundleError for any other name."""
        if all(entry.name != name for entry in self.manifest.files):
            raise BundleError(f"The bundle {self.path} has no file {name}.", hint="Export the bundle again.")
        return self.path / name

    def has_file(self, name: str) -> bool:
        """Whether the manifest lists ``name``."""
        return any(entry.name == name for entry in self.manifest.files)

    @property
    def mapped_files(self) -> list[Path]:
        """Files whose contents a loaded model goes on reading."""
        return [self.path / f.name for f in self.manifest.files if Path(f.name).suffix not in _READ_ONCE]

    @property
    def chat_template(self) -> str | None:
        """The Jinja chat template, if the model has one."""
        return self.file(CHAT_TEMPLATE).read_text(encoding="utf-8") if self.has_file(CHAT_TEMPLATE) else None

    @property
    def generation(self) -> dict[str, Any]:
        """Generation defaults (temperature, top_p, ...) as stored in generation.json."""
        return self._json(GENERATION) if self.has_file(GENERATION) else {}

    @property
    def tokenizer_config(self) -> dict[str, Any]:
        """Content of tokenizer_config.json (special token strings and flags)."""
        return self._json(TOKENIZER_CONFIG) if self.has_file(TOKENIZER_CONFIG) else {}

    def _json(self, name: str) -> dict[str, Any]:
        try:
            value = json.loads(self.file(name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise BundleError(f"{name} is not valid JSON ({error}).", hint="Export the bundle again.") from error
        if not isinstance(value, dict):
            raise BundleError(f"{name} holds {type(value).__name__}, expected an object.")
        return value

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(f.size for f in self.manifest.files)


def _check_size(root: Path, entry: FileEntry) -> None:
    relative = PurePosixPath(entry.name)
    if relative.is_absolute() or ".." in relative.parts:
        raise BundleError(f"The manifest lists {entry.name!r}, which lies outside the bundle.")
    path = root / entry.name
    if not path.is_file():
        raise BundleError(f"{path} is missing.", hint="Copy the bundle again or export it again.")
    size = path.stat().st_size
    if size != entry.size:
        raise BundleError(
            f"{path} has {size} bytes, the manifest says {entry.size}.",
            hint="Copy the bundle again or export it again.",
        )


def hash_file(path: Path, progress: Progress | None = None) -> str:
    """SHA-256 of a file in hex, read in chunks."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(_HASH_CHUNK):
            digest.update(chunk)
            if progress is not None:
                progress.advance(len(chunk))
    return digest.hexdigest()


def file_entry(root: Path, name: str) -> FileEntry:
    """Entry for the file ``name`` under ``root`` as it is now."""
    path = root / name
    return FileEntry(name, path.stat().st_size, hash_file(path))
