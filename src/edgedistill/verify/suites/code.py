"""Runs the program in a reply against the tests of its prompt, in a child process with limits.

The process has no environment variables, an empty directory that is removed, and limits of time, memory and file size;
calls that open connections or start programs are replaced. This stops accidents, not attacks: a model's code runs with
the user's rights, so the user has to allow it (``--allow-code``). On Windows there is only the limit of time.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgedistill.verify.types import Prompt

SECONDS = 10
_NEEDED = ("SYSTEMROOT",)
"""Windows starts no Python without it."""
MEMORY_BYTES = 1 << 30
_FILE_BYTES = 1 << 20
_FENCE = re.compile(r"```(?:python|py|python3)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_BEGUN = re.compile(r"(?:^|\n)((?:from|import|def|class|@)[^\n]*\n.*)", re.DOTALL)
_NAME = re.compile(r"def (\w+)\(")

# The program's output is discarded. A secret word is printed after its tests, so that a program that exits early
# (sys.exit) does not pass.
_LIMITS = f"""
import os, socket, sys
_word, _said = sys.stdin.readline(), os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
    resource.setrlimit(resource.RLIMIT_CPU, ({SECONDS}, {SECONDS}))
    resource.setrlimit(resource.RLIMIT_FSIZE, ({_FILE_BYTES}, {_FILE_BYTES}))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
def _refuse(*_, **__):
    raise PermissionError("not allowed here")
socket.socket.connect = socket.socket.bind = _refuse
os.system = os.popen = os.fork = os.execv = os.execve = os.kill = os.posix_spawn = _refuse
import subprocess
subprocess.Popen = _refuse
_write = os.write
exec(compile(sys.stdin.read(), "reply", "exec"), {{"__name__": "__main__"}})
_write(_said, _word.encode())
"""


def program_of(text: str) -> str:
    """The last fenced code block of a reply, or the whole reply if there is none."""
    blocks = _FENCE.findall(text)
    return str(blocks[-1] if blocks else text)


def run_reply(text: str, prompt: Prompt) -> str:
    """ "passes" or "fails": whether the program in ``text`` passes the prompt's tests within the limits."""
    program, question = program_of(text), prompt.messages[-1].content
    blocks = _FENCE.findall(question)
    begun = _BEGUN.search(str(blocks[-1] if blocks else question))
    starts = [program]
    if begun is not None:
        # A model may continue the function that the prompt begins, as HumanEval was made for, or repeat it whole.
        name = _NAME.search(begun[1])
        repeated = name is not None and f"def {name[1]}" in program
        starts = [_imports(begun[1]) + program] if repeated else [begun[1] + program, program]
    return "passes" if any(_passes(f"{start}\n\n{prompt.tests}\n") for start in starts) else "fails"


def _imports(begun: str) -> str:
    return "".join(f"{line}\n" for line in begun.splitlines() if line.startswith(("import ", "from ")))


def _passes(source: str) -> bool:
    word = secrets.token_hex()
    with tempfile.TemporaryDirectory(prefix="edgedistill-code-") as directory:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", _LIMITS],
                input=f"{word}\n{source}".encode("utf-8", "replace"),
                cwd=Path(directory),
                env={name: os.environ[name] for name in _NEEDED if name in os.environ},
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=SECONDS + 2,
                check=False,
            )
        except (subprocess.TimeoutExpired, OSError):
            return False
    return done.returncode == 0 and done.stdout.decode("ascii", "replace").strip() == word
