"""The tiny checkpoint, exported once per session and format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from exporting import export
from runtime_support import CONTEXT, save_checkpoint
from shared import made_once

from edgedistill.runtime.model import Model, open_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Directory of the tiny checkpoint and its transformers model."""
    directory = tmp_path_factory.mktemp("tiny-qwen3")
    return directory, save_checkpoint(directory)


@pytest.fixture(scope="session")
def tiny_bundle(checkpoint: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Bundle of the tiny checkpoint in a weight format such as ``fp32`` or ``int4-b32``."""

    def get(weight_format: str) -> Path:
        return made_once(
            tmp_path_factory,
            f"bundles/{weight_format}",
            lambda out: export(checkpoint[0], out, format=weight_format, context=CONTEXT, check=False),
        )

    return get


@pytest.fixture(scope="module")
def fp32(tiny_bundle: Callable[[str], Path]) -> Iterator[Model]:
    """The tiny checkpoint in full precision, opened with one thread."""
    with open_bundle(tiny_bundle("fp32"), threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def roomy(roomy_bundle_dir: Path) -> Iterator[Model]:
    """That bundle, opened with one thread."""
    with open_bundle(roomy_bundle_dir, threads=1) as model:
        yield model
