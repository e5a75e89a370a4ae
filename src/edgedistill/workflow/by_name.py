"""The bundle that a name means: a bundle itself, or one that is made once of a model and kept in the user's cache.

A model is a built-in name, a checkpoint directory, a GGUF file or a Hub id. Its bundle is found again by what it was
made of: the source's files (name, size, time of change) or its commit on the Hub, the profile, and the version of this
program. A Hub repository that holds a bundle is pulled into the same cache, once a commit. What a bundle directory
means is left to whoever opens it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill._version import __version__
from edgedistill.bundle.bundle import MANIFEST, WEIGHTS
from edgedistill.catalog import builtin
from edgedistill.errors import ModelNotFoundError, OutputError
from edgedistill.profile.profile import DEFAULT_PROFILE, load_profile

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgedistill.progress import Progress
    from edgedistill.workflow.publish import Published

_MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "*.gguf")


@dataclass(frozen=True, slots=True)
class CachedBundle:
    """A bundle in the cache: the ``model`` it was made of, in the form that its directory has; ``size`` in bytes."""

    model: str
    path: Path
    size: int


def cache() -> Path:
    """The directory of the bundles that were made of models."""
    return builtin.cache_dir() / "bundles"


def cached() -> tuple[CachedBundle, ...]:
    """The bundles in the cache, by name."""
    found = []
    for path in sorted(cache().glob(f"*/{MANIFEST}")):
        directory = path.parent
        size = sum(file.stat().st_size for file in directory.iterdir() if file.is_file())
        found.append(CachedBundle(directory.name.rpartition("-")[0], directory, size))
    return tuple(found)


def bundle_of(
    model: str | Path,
    *,
    offline: bool = False,
    progress: Progress | None = None,
    on_export: Callable[[Path], object] | None = None,
    on_pull: Callable[[Path, int], object] | None = None,
) -> Path:
    """The bundle directory that ``model`` means, made by the default profile where there is none yet.

    A path that is neither a bundle nor a model comes back as it is: opening it says what is wrong with it.

    Args:
        model: Bundle directory, built-in name, checkpoint directory, GGUF file or Hub id.
        offline: Never touch the network.
        progress: Receiver of the progress of a download and an export.
        on_export: Called with the bundle's path before an export begins.
        on_pull: Called with the bundle's path and its size in bytes before a bundle of the Hub is fetched.

    Raises:
        EdgedistillError: As ``export`` and ``pull``: no model of that name, one that is not supported, no space.
    """
    name = model.as_posix() if isinstance(model, Path) else model
    path = Path(name).expanduser()
    identity: object
    if path.exists():
        parts = _model_at(path)
        if not parts:
            return path
        made_of, identity = str(path), [_states(part) for part in parts]
    elif (built_in := builtin.resolve(name)) is not None:
        made_of, identity = name, _states(built_in)
    else:
        from edgedistill.checkpoint.open import hub_id

        found = hub_id(name)
        if found is None or path.parent.is_dir():  # a path with a slip of the pen
            return path
        on_hub = _on_hub(*found, offline, progress)
        if not isinstance(on_hub, str):
            return _pulled(name, found[0], on_hub, offline, progress, on_pull)
        made_of, identity = name, [found[0], on_hub]
    from edgedistill.export.options import ExportOptions
    from edgedistill.workflow.export import export

    profile = load_profile(DEFAULT_PROFILE)

    def make(target: Path) -> None:
        if on_export is not None:
            on_export(target)
        export(made_of, target, ExportOptions(profile=profile, offline=offline, verify=False), progress=progress)

    return _made_once(name, [identity, profile.to_dict(), __version__], make)


def _on_hub(repository: str, revision: str | None, offline: bool, progress: Progress | None) -> Published | str:
    """The bundle that the repository holds, or the commit of its checkpoint, which is downloaded; what the hub's cache
    has is not asked for again.
    """
    from edgedistill.checkpoint.hub import download
    from edgedistill.workflow.publish import find_bundle

    with contextlib.suppress(ModelNotFoundError):
        if (cached_bundle := find_bundle(repository, revision, offline=True)) is not None:
            return cached_bundle
        return download(repository, revision, offline=True).commit
    if not offline and (bundle := find_bundle(repository, revision)) is not None:
        return bundle
    return download(repository, revision, offline=offline, progress=progress).commit


def _pulled(
    name: str,
    repository: str,
    found: Published,
    offline: bool,
    progress: Progress | None,
    on_pull: Callable[[Path, int], object] | None,
) -> Path:
    from edgedistill.workflow.publish import pull

    def fetch(target: Path) -> None:
        if on_pull is not None:
            on_pull(target, found.size)
        pull(repository, target, revision=found.commit, offline=offline, progress=progress)

    return _made_once(name, [repository, found.commit], fetch)


def _made_once(name: str, key: object, make: Callable[[Path], object]) -> Path:
    """The bundle of ``name`` and ``key`` in the cache, where ``make`` puts it if it is not there."""
    target = cache() / f"{slug(name)}-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]}"
    if (target / MANIFEST).is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{target.parent}: cannot be written ({error.strerror or error}).",
            hint=f"Choose another directory with {builtin.CACHE_VARIABLE}.",
        ) from error
    try:
        make(target)
    except OutputError:
        if not (target / MANIFEST).is_file():  # another process made it meanwhile
            raise
    return target


def _model_at(path: Path) -> list[Path]:
    """What the model at ``path`` is made of: a GGUF file, or the directory of a checkpoint, and for an adapter its base
    where that is on this machine. Empty: ``path`` is a bundle, or nothing known.
    """
    if path.is_file():
        return [path] if path.suffix == ".gguf" else []
    if (path / MANIFEST).is_file() or (path / WEIGHTS).is_file():  # a bundle, whole or not: it has a config.json too
        return []
    from edgedistill.checkpoint.locate import ADAPTER_CONFIG, CONFIG, locate

    located = locate(path)
    if not any((located.directory / name).is_file() for name in (CONFIG, ADAPTER_CONFIG)):
        return []
    base = None if located.base is None else Path(located.base)
    return [located.directory] if base is None or not base.exists() else [located.directory, *_model_at(base)]


def _states(path: Path) -> list[tuple[str, int, int]]:
    files = {path} if path.is_file() else {file for pattern in _MODEL_FILES for file in path.glob(pattern)}
    found = [(str(file.resolve()), file.stat()) for file in sorted(files)]
    return [(name, state.st_size, state.st_mtime_ns) for name, state in found]


def slug(name: str) -> str:
    """``name`` as part of a file's name on every system: what ``CachedBundle.model`` is for a model of that name."""
    return re.sub(r"[^\w.]+", "-", Path(name).name if Path(name).exists() else name).strip("-.")[:60] or "model"
