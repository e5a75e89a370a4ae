"""Run the command line as a user does: in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

STAGE = re.compile(r"[a-z ]+: (.* in )?[0-9.]+ (ms|s)")
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
        """The message of a refusal: one line after those of finished stages, nothing on stdout, the exit code."""
        *stages, last = [line for line in self.err.splitlines() if line] or [""]
        assert self.code == code, self.err
        assert last.startswith("error: "), self.err
        assert all(STAGE.fullmatch(line) for line in stages), self.err
        assert self.out == ""
        return last


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
