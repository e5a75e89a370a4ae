"""Programs of replies: what passes, and what the process that runs them may not do."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edgedistill.verify.suites import code
from edgedistill.verify.suites.code import program_of, run_reply
from edgedistill.verify.types import Message, Prompt

HUMAN_EVAL = (
    "Complete this Python function.\n\n```python\nfrom math import sqrt\n\n"
    'def root(x):\n    """The root."""\n```'
)  # fmt: skip


def prompt(tests: str, question: str = "Write f.") -> Prompt:
    return Prompt("p", (Message("user", question),), "passes", extract="code", tests=tests)


def fenced(program: str) -> str:
    return f"Here it is:\n\n```python\n{program}\n```\nThat is all."


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (fenced("def f(x):\n    return x + 1"), "passes"),
        ("def f(x):\n    return x + 1", "passes"),
        (fenced("def f(x):\n    return x"), "fails"),
        (fenced("def f(x):\n    return x +"), "fails"),
        (fenced("def g(x):\n    return x + 1"), "fails"),
        ("I do not know.", "fails"),
        ("", "fails"),
        (fenced("def f(x):\n    return 0") + "\nNo, rather:\n" + fenced("def f(x):\n    return x + 1"), "passes"),
        (fenced("import sys\ndef f(x):\n    sys.exit(0)"), "fails"),
        (fenced("import os\nos._exit(0)"), "fails"),
        (fenced("raise SystemExit"), "fails"),
    ],
)
def test_replies(reply: str, expected: str) -> None:
    assert run_reply(reply, prompt("assert f(1) == 2")) == expected


def test_a_function_may_be_continued_or_repeated() -> None:
    asked = prompt("assert root(9) == 3", HUMAN_EVAL)
    assert run_reply("```python\n    return sqrt(x)\n```", asked) == "passes"
    assert run_reply(fenced("def root(x):\n    return sqrt(x)"), asked) == "passes", "imports of the prompt count"
    assert run_reply(fenced("def root(x):\n    return x"), asked) == "fails"


def test_the_last_block_is_the_program() -> None:
    assert program_of("```py\na\n```\n```\nb\n```") == "b\n"
    assert program_of("```python\nunclosed") == "unclosed"


@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.create_connection(('127.0.0.1', 9))",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.system('true')",
        "import os; os.fork()",
        "open('big', 'wb').write(b'x' * (4 << 20))",
        "x = bytearray(3 << 30)",
    ],
)
def test_what_is_not_allowed_fails(program: str) -> None:
    if os.name == "nt" and ("bytearray" in program or "open" in program):
        pytest.skip("limits of POSIX")
    assert run_reply(fenced(program), prompt("pass")) == "fails"


def test_a_program_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "SECONDS", -1)  # of the process, with two of grace
    begun = time.monotonic()
    assert run_reply(fenced("while True: pass"), prompt("pass")) == "fails"
    assert time.monotonic() - begun < 60


def test_it_sees_no_environment_and_leaves_no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    tests = "import os\nassert 'SECRET_TOKEN' not in os.environ\nassert os.listdir() == ['note']"
    assert run_reply(fenced("open('note', 'w').write('x')"), prompt(tests)) == "passes"
    assert list(tmp_path.iterdir()) == []
