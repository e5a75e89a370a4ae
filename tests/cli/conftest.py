"""What tests of commands share: the fp32 bundle of the tiny checkpoint, questions that it answers, recurrent models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cli_support import SUITE_PROMPTS
from hybrid_checkpoints import WRITERS
from shared import made_once

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="session")
def reference(tiny_checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from exporting import export

    return made_once(
        tmp_path_factory,
        "reference/fp32",
        lambda out: export(tiny_checkpoint_dir, out, profile="laptop-cpu", format="fp32", check=True),
    )


@pytest.fixture(scope="module", params=sorted(WRITERS))
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of each kind of recurrent layers."""
    return made_once(tmp_path_factory, f"checkpoint/tiny-{request.param}", WRITERS[request.param])


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model says nothing sensible: whatever it says is the answer, and one token is enough."""
    path = tmp_path_factory.mktemp("suite") / "texts.jsonl"
    header = {"suite": "texts", "sampling": {"temperature": 0.5, "max_new_tokens": 24}}
    prompts = [{"id": f"p{i}", "prompt": f"Say {i}", "extract": "text"} for i in range(SUITE_PROMPTS)]
    path.write_text("\n".join(json.dumps(line) for line in (header, *prompts)))
    return path
