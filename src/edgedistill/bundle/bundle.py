"""The artefact on disk: a directory that holds a manifest and exactly the files that it lists.

A bundle is closed: every open refuses links and files that the manifest does not list, and nothing but listed files is
read. Files that are read whole (graphs, tokenizer, template, JSON) are compared with their SHA-256 whenever they are
read; the weights, which are mapped, with ``check="full"``. What was checked is what is loaded: see ``loading``.
Writing happens in a staging directory beside the target that becomes the bundle by one rename; see
``bundle/staging.py``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgedistill.bundle.external_data import external_locations
from edgedistill.bundle.manifest import FORM, FileEntry, Manifest
from edgedistill.bundle.regular_files import FileState, PinnedDirectory, hash_descriptor
from edgedistill.bundle.signature import SIGNATURE, trusted_key, verify_signature
from edgedistill.errors import BundleError
from edgedistill.progress import NullProgress, Progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MANIFEST = "manifest.json"
MODEL = "model.onnx"
PREFILL_MODEL = "model-prefill.onnx"
GENAI_MODEL = "model-genai.onnx"
PORTABLE_MODEL = "model-portable.onnx"
WIDENED = "widened.json"
WIDENED_MODELS = {MODEL: "model-widened.onnx", PREFILL_MODEL: "model-prefill-widened.onnx"}
"""By graph: the one that stands for it where the runtime supplies its matrices (see ``runtime.bit_planes``)."""
GENAI_CONFIG = "genai_config.json"
WEIGHTS = "weights.bin"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
GENERATION = "generation.json"
CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
MODEL_CARD = "README.md"

Check = Literal["size", "full"]
_READ_ONCE = (".onnx", ".json", ".jinja", ".md", ".txt", ".model")
"""Endings of files that are read when a model is loaded and never again."""

_COPY = "Copy the bundle again or export it again."
_ALWAYS_ALLOWED = (MANIFEST, SIGNATURE, MODEL_CARD)
"""Files that the manifest need not list: the card is for people alone, and is amended after the export."""

_LARGEST_TEXT = 256 << 20
"""Most bytes of a manifest (one of 10,000 weights has 3 MB)."""

_IDENTITY = "edgedistill bundle 1"
"""Beginning of what is hashed for an identity."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: its directory and manifest. All files were present with the right size when it was opened.

    ``states``: which files those were; loading refuses others. Empty for a directory that is not opened but written.
    """

    path: Path
    manifest: Manifest
    states: Mapping[str, FileState] = field(default_factory=dict, compare=False, repr=False)

    @staticmethod
    def open(
        path: str | Path,
        *,
        check: Check = "size",
        trusted: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Bundle:
        """Read the manifest in ``path`` and check its files.

        Args:
            path: Bundle directory.
            check: ``size`` compares file sizes, ``full`` also every SHA-256 and what the graphs refer to.
            trusted: Public key that must have signed the bundle; default: the one that ``EDGEDISTILL_TRUSTED_KEY``
                names, if it is set. With a key the check is always ``full``.
            progress: Receives bytes while hashing.

        Raises:
            BundleError: No bundle there, a file missing, altered, of another size, a link or not listed, a graph that
                refers to a file that is not listed, a newer schema, or no signature by the trusted key.
        """
        root = Path(path)
        if not root.is_dir():
            found = "a file" if root.exists() else "nothing"
            raise BundleError(
                f"Expected a bundle directory at {root}, found {found}.",
                hint="Make one with: edgedistill export tiny-reasoner -o my-bundle",
            )
        with PinnedDirectory(root) as directory:
            names = directory.names()
            if MANIFEST not in names:
                raise BundleError(
                    f"{root} has no {MANIFEST}, so it is not a finished edgedistill bundle.",
                    hint="Make one with: edgedistill export MODEL -o DIR",
                )
            text = _read_whole(directory, MANIFEST)
            key = trusted_key(trusted)
            if key is not None:
                verify_signature(root, text, _read_whole(directory, SIGNATURE) if SIGNATURE in names else None, key)
                check = "full"
            manifest = Manifest.from_json(text)
            _check_names(root, manifest, names)
            states = {entry.name: _checked_state(directory, entry) for entry in manifest.files}
            bundle = Bundle(root, manifest, states)
            if check == "full":
                bundle._check_contents(directory, progress or NullProgress())
        return bundle

    def _check_contents(self, directory: PinnedDirectory, progress: Progress) -> None:
        """Compare every file's SHA-256 with the manifest and look at the references of every graph."""
        progress.begin("checking hashes", sum(f.size for f in self.manifest.files), "bytes")
        files = LoadingFiles(self, directory)
        for entry in self.manifest.files:
            if entry.name.endswith(".onnx"):
                files.graph(entry.name)
                progress.advance(entry.size)
                continue
            descriptor = directory.open(entry.name)
            try:
                _require_hash(entry, hash_descriptor(descriptor, progress))
                files.require_same(entry.name, FileState.of(os.fstat(descriptor)))
            finally:
                os.close(descriptor)
        progress.end()

    @contextmanager
    def loading(self) -> Iterator[LoadingFiles]:
        """The files to load a model from; on leaving, they still have to be those that were opened.

        A file that was replaced or written to since the bundle was opened is refused, and so is a model that was
        loaded while that happened: what answers is what was checked. (A process of the same user can still write to
        weights that are mapped; see ``system.file_leases``.)

        Raises:
            BundleError: A file was altered, or replaced since the bundle was opened.
        """
        with PinnedDirectory(self.path) as directory:
            files = LoadingFiles(self, directory)
            files.require_all_same()
            yield files
            files.require_all_same()

    def read(self, name: str) -> bytes:
        """Content of a listed file, compared with its SHA-256; raises BundleError."""
        with PinnedDirectory(self.path) as directory:
            return LoadingFiles(self, directory).read(name)

    def identity(self) -> str:
        """SHA-256 in hex over everything that an answer can depend on.

        That is: name, size and SHA-256 of every file except texts for people (``*.md``, licences), and of the manifest
        the model's geometry and special tokens, the KV cache, and the profile (threads, optimisation level, chunks).
        When and with which versions the bundle was made, and what was found out about it, do not count.
        """
        raw = dataclasses.asdict(self.manifest)
        content = {
            "files": sorted([f.name, f.size, f.sha256] for f in self.manifest.files if _answers(f.name)),
            **{name: raw[name] for name in ("schema_version", "model", "kv_cache", "profile")},
        }
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(f"{_IDENTITY}\n{text}".encode()).hexdigest()

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
        return FORM.text(self.read(CHAT_TEMPLATE), CHAT_TEMPLATE) if self.has_file(CHAT_TEMPLATE) else None

    @property
    def generation(self) -> dict[str, Any]:
        """Generation defaults (temperature, top_p, ...) as stored in generation.json."""
        return self._json(GENERATION) if self.has_file(GENERATION) else {}

    @property
    def tokenizer_config(self) -> dict[str, Any]:
        """Content of tokenizer_config.json (special token strings and flags)."""
        return self._json(TOKENIZER_CONFIG) if self.has_file(TOKENIZER_CONFIG) else {}

    def _json(self, name: str) -> dict[str, Any]:
        return FORM.parse_object(self.read(name), name)

    @property
    def size(self) -> int:
        """Bytes of all listed files."""
        return sum(f.size for f in self.manifest.files)


class LoadingFiles:
    """The files of a bundle while a model is loaded from them; see ``Bundle.loading``."""

    def __init__(self, bundle: Bundle, directory: PinnedDirectory) -> None:
        self._bundle = bundle
        self._directory = directory
        self._entries = {entry.name: entry for entry in bundle.manifest.files}
        self._states = dict(bundle.states)

    @property
    def location(self) -> Path:
        """The directory, for libraries that read listed files by path."""
        return self._directory.location

    def read(self, name: str) -> bytes:
        """Content of a listed file, read once and compared with its SHA-256; raises BundleError."""
        entry = self._entry(name)
        descriptor = self._directory.open(name)
        with os.fdopen(descriptor, "rb") as stream:
            _require_size(self._bundle.path / name, entry, os.fstat(descriptor).st_size)
            content = stream.read(entry.size + 1)
        _require_hash(entry, hashlib.sha256(content).hexdigest())
        return content

    def graph(self, name: str) -> bytes:
        """Content of a listed graph whose external data lies in listed files alone; raises BundleError."""
        content = self.read(name)
        for location in sorted(external_locations(content, name)):
            if location not in self._entries:
                raise BundleError(
                    f"{name} refers to data in {location!r}, which is not a file that the manifest lists.",
                    hint="Export the bundle again; do not open one of unknown origin.",
                )
        return content

    def require_listed(self, name: str) -> None:
        """Raises BundleError unless the manifest lists ``name``."""
        self._entry(name)

    def require_all_same(self) -> None:
        """Raises BundleError where a file is not what it was at the first look."""
        for name in self._entries:
            if _answers(name):
                self.require_same(name, self._directory.state(name))

    def require_same(self, name: str, state: FileState) -> None:
        """Raises BundleError where the file ``name``, now in ``state``, was replaced or written to."""
        if self._states.setdefault(name, state) != state:
            raise BundleError(
                f"{self._bundle.path / name} was changed while the bundle was opened.",
                hint="Open it again when no other program writes to it.",
            )

    def _entry(self, name: str) -> FileEntry:
        if (entry := self._entries.get(name)) is None:
            raise BundleError(f"The bundle {self._bundle.path} has no file {name}.", hint="Export the bundle again.")
        return entry


def _answers(name: str) -> bool:
    """Whether an answer can depend on the listed file ``name``: all but texts for people."""
    return not name.endswith(".md") and not name.startswith(("LICENSE", "LICENCE", "NOTICE"))


def _check_names(root: Path, manifest: Manifest, present: list[str]) -> None:
    """Raises BundleError for listed names that are no files of the directory, and for files that are not listed."""
    listed = {entry.name for entry in manifest.files}
    if len(listed) != len(manifest.files):
        raise BundleError(f"The manifest of {root} lists a file twice.", hint=_COPY)
    for name in listed:
        if name in (MANIFEST, SIGNATURE) or name.startswith("."):
            raise BundleError(f"The manifest lists {name!r}, which is not a file of a model.")
    for name in present:
        if name not in listed and name not in _ALWAYS_ALLOWED and not name.startswith("."):
            raise BundleError(
                f"{root} holds {name!r}, which its manifest does not list.",
                hint="Remove it, or copy the bundle again: a bundle may hold no other files.",
            )


def _checked_state(directory: PinnedDirectory, entry: FileEntry) -> FileState:
    state = directory.state(entry.name)
    _require_size(directory.path / entry.name, entry, state.size)
    return state


def _require_size(path: Path, entry: FileEntry, size: int) -> None:
    if size != entry.size:
        raise BundleError(f"{path} has {size} bytes, the manifest says {entry.size}.", hint=_COPY)


def _require_hash(entry: FileEntry, found: str) -> None:
    if found != entry.sha256:
        raise BundleError(
            f"{entry.name} was altered: SHA-256 {found[:16]}… found, {entry.sha256[:16]}… in the manifest.", hint=_COPY
        )


def _read_whole(directory: PinnedDirectory, name: str) -> bytes:
    with os.fdopen(directory.open(name), "rb") as stream:
        content = stream.read(_LARGEST_TEXT + 1)
    if len(content) > _LARGEST_TEXT:
        raise BundleError(f"{directory.path / name} has more than {_LARGEST_TEXT} bytes.", hint=_COPY)
    return content


def hash_file(path: Path, progress: Progress | None = None) -> str:
    """SHA-256 of a file in hex, read in chunks."""
    with path.open("rb", buffering=0) as stream:
        return hash_descriptor(stream.fileno(), progress)


def file_entry(root: Path, name: str) -> FileEntry:
    """Entry for the file ``name`` under ``root`` as it is now."""
    path = root / name
    return FileEntry(name, path.stat().st_size, hash_file(path))
