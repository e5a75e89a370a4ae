"""One server of tiny-reasoner in full precision for all tests of the API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from api_server import Served, serving
from exporting import export
from shared import made_once

from edgedistill.runtime.model import Model, open_bundle

if TYPE_CHECKING:
    import openai


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """tiny-reasoner in float32: rows of a batch and lone sequences agree bit for bit on every machine."""
    bundle = made_once(
        tmp_path_factory,
        "server/fp32",
        lambda out: export("tiny-reasoner", out, format="fp32", context=768, check=False),
    )
    with open_bundle(bundle, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def served(model: Model) -> Iterator[Served]:
    """A server of it with four places, whose threads no other file's tests meet; at the end it has reported no bug."""
    with serving(model, parallel=4) as running:
        yield running
        assert not running.bugs


@pytest.fixture
def client(served: Served) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, without retries."""
    import openai

    with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0, timeout=60) as made:
        yield made
