"""Bundles of tiny-reasoner, exported once per session and format, and opened once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from exporting import export
from shared import made_once

from edgedistill.runtime.model import open_bundle
from edgedistill.verify.models.bundle import BundleModel
from edgedistill.verify.suites.registry import load_suite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgedistill.verify.types import Prompt


@pytest.fixture(scope="session")
def reasoner(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Bundle of tiny-reasoner in a weight format."""

    def get(weight_format: str) -> Path:
        return made_once(
            tmp_path_factory,
            f"reasoner/{weight_format}",
            lambda out: export("tiny-reasoner", out, format=weight_format, context=256, check=False),
        )

    return get


@pytest.fixture(scope="session")
def reasoner_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny-reasoner for laptop-cpu; copy it before changing it."""
    return made_once(
        tmp_path_factory, "laptop/tiny", lambda out: export("tiny-reasoner", out, profile="laptop-cpu", check=False)
    )


@pytest.fixture(scope="session")
def sampled(reasoner: Callable[[str], Path]) -> Iterator[Callable[..., BundleModel]]:
    """An opened bundle of tiny-reasoner; keywords are those of ``BundleModel``."""
    opened: list[BundleModel] = []

    def get(weight_format: str = "int4-b32", **keywords: object) -> BundleModel:
        model = BundleModel(open_bundle(reasoner(weight_format), threads=1), **keywords)  # type: ignore[arg-type]
        opened.append(model)
        return model

    yield get
    for model in opened:
        model.close()


@pytest.fixture(scope="session")
def prompts() -> tuple[Prompt, ...]:
    """Three questions of different length."""
    return load_suite("arithmetic").prompts[::60]
