"""One server of tiny-reasoner in full precision for all tests of the API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from api_server import Served, serving

from edgedistill.runtime.model import Model, open_bundle

if TYPE_CHECKING:
    import openai


@pytest.fixture(scope="session")
def model(reasoner: Callable[[str], Path]) -> Iterator[Model]:
    """tiny-reasoner in float32: rows of a batch and lone sequences agree bit for bit on every machine."""
    with open_bundle(reasoner("fp32"), threads=1) as opened:
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
