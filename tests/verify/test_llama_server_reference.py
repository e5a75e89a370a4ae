"""llama.cpp's own server as the reference, and as what is verified, where one is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_support import here
from llama_server import PROGRAM, llama_server, reasoner_gguf

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PROGRAM is None, reason="llama-server is not installed")]
RUN = ("--prompts", "8", "--samples", "8", "-n", "160", "--no-store", "--json", "-q")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with llama_server(reasoner_gguf(tmp_path_factory.mktemp("llama") / "tiny-reasoner.gguf")) as url:
        yield url


def test_it_is_the_reference(address: str, reasoner: Callable[[str], Path]) -> None:
    done = here("verify", str(reasoner("fp32")), "--reference", address, *RUN)
    assert done.code in (0, 3), done.err
    assert done.json["reference"]["kind"] == "endpoint"
    assert done.json["gate"]["result"] != "fail"


def test_it_is_verified_against_a_baseline(address: str, reasoner: Callable[[str], Path], tmp_path: Path) -> None:
    baseline = str(tmp_path / "fp32.baseline")
    made = here("baseline", "create", str(reasoner("fp32")), "-o", baseline, *RUN[:6])
    assert made.code == 0, made.err
    done = here("verify", address, "--baseline", baseline, *RUN[6:])
    assert done.code in (0, 3), done.err
    assert done.json["bundle"]["kind"] == "endpoint"
    assert done.json["gate"]["result"] != "fail"
