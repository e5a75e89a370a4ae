"""llm's command line and litellm against the server, where they are installed: both are too large for the tests' own
environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from api_server import Served

from edgedistill.runtime.model import Model

pytestmark = pytest.mark.slow
QUESTION = "What is 17 + 25?"
MODEL = """\
- model_id: my-bundle
  model_name: tiny
  api_base: {url}
"""


def test_llm(served: Served, model: Model, tmp_path: Path) -> None:
    program = shutil.which("llm")
    if program is None:
        pytest.skip("llm is not installed")
    (tmp_path / "extra-openai-models.yaml").write_text(MODEL.format(url=served.url))
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env = kept | {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
    told = model.generate(QUESTION, temperature=0, max_new_tokens=60).answer
    for more in ([], ["--no-stream"]):
        command = [program, "-m", "my-bundle", QUESTION, "-o", "temperature", "0", "-o", "max_tokens", "60", *more]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == told.strip()


def test_litellm(served: Served, model: Model) -> None:
    litellm: Any = pytest.importorskip("litellm", reason="litellm is not installed")
    asked: dict[str, Any] = {
        "model": "openai/tiny", "api_base": served.url, "api_key": "none", "temperature": 0, "max_tokens": 60,
        "messages": [{"role": "user", "content": QUESTION}],
    }  # fmt: skip
    told = model.generate(QUESTION, temperature=0, max_new_tokens=60)
    got = litellm.completion(**asked)
    assert got.choices[0].message.content == told.answer
    assert got.choices[0].message.reasoning_content == told.reasoning
    assert got.usage.completion_tokens == told.stats.new_tokens
    pieces = litellm.completion(stream=True, **asked)
    assert "".join(one.choices[0].delta.content or "" for one in pieces if one.choices) == told.answer
