"""Bundles of tiny-reasoner, exported once per session and format, and opened once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from exporting import export

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
    made: dict[str, Path] = {}

    def get(weight_format: str) -> Path:
        if weight_format not in made:
            out = tmp_path_factory.mktemp("reasoner") / weight_format
            export("tiny-reasoner", out, format=weight_format, context=256, check=False)
            made[weight_format] = out
        return made[weight_format]

    return get


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
