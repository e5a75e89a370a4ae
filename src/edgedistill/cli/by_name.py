"""A model where a command takes a bundle: exported once into the user's cache, with a line that says where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.bundle.bundle import MANIFEST
from edgedistill.cli import console

if TYPE_CHECKING:
    from pathlib import Path

MODEL_HELP = "bundle directory; or a model (built-in name, checkpoint, GGUF file, Hub id), which is exported once"


def bundle_path(named: Path) -> Path:
    """The bundle directory that ``named`` means; errors: see ``workflow.by_name.bundle_of``."""
    if (named / MANIFEST).is_file():
        return named
    from edgedistill.profile.profile import DEFAULT_PROFILE
    from edgedistill.workflow.by_name import bundle_of

    def tell(path: Path) -> None:
        console.note(f"exporting {named} for {DEFAULT_PROFILE} to {path}; later runs use it again")

    with console.progress() as progress:
        return bundle_of(named, progress=progress, on_export=tell)
