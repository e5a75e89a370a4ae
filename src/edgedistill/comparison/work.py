"""Bundles of one model in several formats, built one at a time in a work directory that outlives an interruption.

Beside each bundle lies a note of what it was built from; one that says the same is taken as it is.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgedistill._version import __version__
from edgedistill.bundle.bundle import Bundle
from edgedistill.errors import BudgetError, BundleError, OutputError
from edgedistill.export.options import ExportOptions
from edgedistill.export.pipeline import export

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.profile.profile import Profile
    from edgedistill.progress import Progress
    from edgedistill.quantize.spec import WeightFormat

_NO_LIMIT_GB = 1e6


@dataclass(frozen=True, slots=True)
class Variant:
    """One bundle to compare: ``format`` replaces the rules of ``profile``, if given. ``name`` is for people."""

    name: str
    profile: Profile
    format: WeightFormat | None

    @property
    def resolved(self) -> Profile:
        """The profile with the format in it."""
        return self.profile.with_overrides(weight_format=self.format)


@dataclass(frozen=True, slots=True)
class Source:
    """The model, as an export takes it, and the hash of its weights."""

    model: str
    sha256: str
    adapter: Path | None = None
    revision: str | None = None
    offline: bool = False
    context_length: int | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """A bundle that is there; ``fits``: whether it keeps to its profile's limits; ``key`` identifies its content."""

    path: Path
    fits: bool
    key: str


def build(variant: Variant, source: Source, directory: Path, progress: Progress, *, own: bool) -> Built:
    """The bundle of ``variant`` in ``directory``, made if it is not there.

    Args:
        variant: What to make.
        source: From what.
        directory: Work directory.
        progress: Receives the export's progress.
        own: Whether the directory is this program's cache, where anything may be replaced.

    Raises:
        OutputError: Another bundle has its place in a directory of the user's.
        EdgedistillError: As for an export. Limits of the profile's target do not count here, those of this machine do.
    """
    path = directory / slug(variant.name)
    note = directory / f"{path.name}.built.json"
    wanted = _identity(variant, source)
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()
    known = _read(note)
    if known.get("built") == wanted and _is_bundle(path):
        return Built(path, bool(known.get("fits", True)), key)
    if path.exists() and not own and not known:
        raise OutputError(
            f"{path} exists and was not made by a comparison.", hint="Choose another directory with --keep."
        )
    directory.mkdir(parents=True, exist_ok=True)
    fits = True
    try:
        _export(variant, variant.profile, source, path, progress)
    except BudgetError:
        target = variant.profile.target
        unlimited = replace(target, machine_ram_gb=_NO_LIMIT_GB, ram_gb=_NO_LIMIT_GB, disk_gb=_NO_LIMIT_GB)
        _export(variant, replace(variant.profile, target=unlimited), source, path, progress)
        fits = False
    note.write_text(json.dumps({"built": wanted, "fits": fits}), encoding="utf-8")
    return Built(path, fits, key)


def slug(name: str) -> str:
    """A file name for a variant: profiles may be paths."""
    return re.sub(r"[^\w.-]+", "-", name).strip("-.") or "bundle"


def _export(variant: Variant, profile: Profile, source: Source, path: Path, progress: Progress) -> None:
    options = ExportOptions(
        profile=profile,
        format=variant.format,
        context=source.context_length,
        exporter="own",
        adapter=source.adapter,
        revision=source.revision,
        offline=source.offline,
        force=True,
        check=False,
    )
    export(source.model, path, options, progress=progress)


def _identity(variant: Variant, source: Source) -> dict[str, Any]:
    return {
        "version": __version__,
        "source": source.sha256,
        "context": source.context_length,
        "profile": json.loads(json.dumps(variant.resolved.to_dict())),
    }


def _is_bundle(path: Path) -> bool:
    try:
        Bundle.open(path)
    except BundleError:
        return False
    return True


def _read(note: Path) -> dict[str, Any]:
    try:
        value = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
