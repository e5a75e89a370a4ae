"""A bundle of tiny-reasoner, the built-in model with real weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgedistill.runtime.model import Model, open_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def reasoner(reasoner_dir: Path) -> Iterator[Model]:
    with open_bundle(reasoner_dir, threads=1) as model:
        yield model
