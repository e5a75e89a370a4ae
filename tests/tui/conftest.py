"""The built-in model as a bundle, for the tests that run the real program."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def reasoner_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-reasoner for laptop-cpu; copy it before changing it."""
    from edgedistill.export.pipeline import export

    return export("tiny-reasoner", tmp_path_factory.mktemp("reasoner") / "tiny", check=False).path
