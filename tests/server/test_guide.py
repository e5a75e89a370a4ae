"""What the guide of the server asks of a running server, asked of one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from api_server import Served
from doc_blocks import RUNNABLE, Block, blocks

GUIDE = Path(__file__).parents[2] / "docs/guides/server.md"
ADDRESS = "http://127.0.0.1:8080"
ASKING = [
    block
    for block in blocks(GUIDE.read_text(encoding="utf-8"))
    if block.language in RUNNABLE and ADDRESS in block.text and "lm_eval" not in block.text
]


def test_there_are_blocks() -> None:
    assert {block.language for block in ASKING} >= {"bash", "python"}


@pytest.mark.parametrize("block", ASKING, ids=lambda block: f"line {block.line}")
def test_a_block_gets_an_answer(block: Block, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    text = block.text.replace(ADDRESS, served.root)
    if block.language == "python":
        exec(compile(text, str(GUIDE), "exec"), {})
        assert capsys.readouterr().out.strip()
        return
    done = subprocess.run(["bash", "-ec", text], capture_output=True, text=True, timeout=120, check=True)
    assert '"error"' not in done.stdout
    assert done.stdout
