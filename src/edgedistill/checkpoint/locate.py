"""The model directory that a path means: itself, the only checkpoint of a training run or the only model in it, a
snapshot of the Hub's cache, or, for an adapter, its base model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedistill.checkpoint.tokenizer.files import read_json
from edgedistill.errors import CheckpointError

CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")


@dataclass(frozen=True, slots=True)
class Located:
    """``directory`` holds the model; for an adapter, ``base`` names its base model and ``directory`` the adapter."""

    directory: Path
    base: str | None = None
    note: str = ""


def locate(path: Path) -> Located:
    """What the directory ``path`` means; raises CheckpointError where it could mean several things, or is a bundle."""
    if all((path / name).is_file() for name in ("model.onnx", "weights.bin")):
        raise CheckpointError(
            f"{path.name} is a bundle, or what is left of one; expected the model that it was made of.",
            hint="The bundle's README.md names that model.",
        )
    # Trainers copy the base's config.json beside an adapter: what has no weights of its own is the adapter.
    weights = any(not name.name.startswith("adapter") for name in path.glob("*.safetensors"))
    is_adapter = (path / ADAPTER_CONFIG).is_file() and not weights
    if (path / CONFIG).is_file() and not is_adapter:
        return Located(path)
    if is_adapter:
        base = read_json(path / ADAPTER_CONFIG).get("base_model_name_or_path")
        if not isinstance(base, str) or not base:
            raise CheckpointError(
                f"{path.name} is an adapter that does not name its base model.",
                hint=f"Name it: edgedistill export BASE --adapter {path}",
            )
        return Located(path, _beside(path, base), f"{path.name} is an adapter of {base}, which it is merged into.")
    if (path / "snapshots").is_dir():
        return _snapshot(path)
    found = sorted(
        (int(match[1]), entry)
        for entry in path.iterdir()
        if entry.is_dir() and (match := _CHECKPOINT.fullmatch(entry.name)) and _is_model(entry)
    )
    if len(found) == 1:
        inner = locate(found[0][1])
        return Located(inner.directory, inner.base, f"{found[0][1].name} in {path.name} is exported.")
    if found:
        names = ", ".join(entry.name for _, entry in found[-5:])
        raise CheckpointError(
            f"{path.name} holds {len(found)} checkpoints of a training run ({names}); expected one model.",
            hint=f"Name one, for instance {found[-1][1]}.",
        )
    inside = sorted(entry for entry in path.iterdir() if entry.is_dir() and _is_model(entry))
    if len(inside) == 1:
        inner = locate(inside[0])
        return Located(inner.directory, inner.base, f"{inside[0].name} in {path.name} is exported.")
    if inside:
        raise CheckpointError(
            f"{path.name} holds {len(inside)} models ({', '.join(entry.name for entry in inside[:5])}); expected one.",
            hint=f"Name one, for instance {inside[0]}.",
        )
    return Located(path)


def _is_model(path: Path) -> bool:
    return (path / CONFIG).is_file() or (path / ADAPTER_CONFIG).is_file()


def _beside(path: Path, base: str) -> str:
    """A base that is a path is relative to where training ran, or lies beside the adapter."""
    for candidate in (Path(base), path.parent / Path(base).name):
        if candidate.is_dir():
            return str(candidate)
    return base


def _snapshot(path: Path) -> Located:
    """The revision of a directory of the Hub's cache: ``main``, or the only one."""
    snapshots = path / "snapshots"
    found: list[Path] = sorted(entry for entry in snapshots.iterdir() if _is_model(entry))
    try:
        main = snapshots / (path / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        main = None
    if main in found:
        return Located(main)
    if len(found) == 1:
        return Located(found[0])
    listed: Any = ", ".join(entry.name[:12] for entry in found) or "none"
    raise CheckpointError(
        f"{path.name} is a cache of the Hub with {len(found)} complete revisions ({listed}); expected one, or main.",
        hint="Name one of the directories in its snapshots/.",
    )
