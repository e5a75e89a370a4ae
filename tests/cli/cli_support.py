"""Run the command line as a user does: in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, "-m", "edgedistill")


@dataclass(frozen=True, slots=True)
class Result:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout as the one JSON document that ``--json`` promises."""
        return json.loads(self.out)

    def one_error(self, code: int = 2) -> str:
        """The message of a refusal: one line on stderr, nothing on stdout, the exit code."""
        lines = [line for line in self.err.splitlines() if line]
        assert self.code == code, self.err
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in self.err
        assert self.out == ""
        return lines[0]


def environment(home: Path | None = None, **extra: str) -> dict[str, str]:
    """The tests' environment without what would change the output; ``home`` replaces the user's directories."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("EDGEDISTILL_", "COV_"))}
    variables.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore", TERM="xterm")
    variables.pop("NO_COLOR", None)
    if home is not None:
        variables.update(
            HOME=str(home), XDG_CONFIG_HOME=str(home / "config"), XDG_CACHE_HOME=str(home / "cache"),
            XDG_STATE_HOME=str(home / "state"), HF_HOME=str(home / "hub"),
        )  # fmt: skip
    return {**variables, **extra}


def edgedistill(*arguments: object, stdin: str = "", home: Path | None = None, **extra: str) -> Result:
    """Run ``edgedistill ARGUMENTS`` and wait."""
    done = subprocess.run(
        [*COMMAND, *(str(argument) for argument in arguments)],
        input=stdin, capture_output=True, text=True, timeout=300, check=False, env=environment(home, **extra),
    )  # fmt: skip
    return Result(done.returncode, done.stdout, done.stderr)
