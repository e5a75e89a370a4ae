"""The page of the hardware profiles: profiles/README.md, which is beside the profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def page(readme: Path) -> str:
    """The text as it is; a test holds its tables against the code."""
    return readme.read_text(encoding="utf-8")
