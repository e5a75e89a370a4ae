"""Run the command line as a user does: in a process of its own, or, for what need not be tried that way, in this one.

A process costs a second or two of imports. ``edgedistill`` is for what a process can do otherwise than a function:
signals, pipes, exit codes, environments; one such run of every command is enough. ``here`` is for its results and
refusals.
"""

from __future__ import annotations

import gc
import json
import os
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import jsonschema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

STAGE = re.compile(r"[\w .-]+: (\d+ %|(.* in )?(\d+ min )?[0-9.]+ (ms|s))|(Plan|note): .*")
"""What may stand before an error: a stage that ended or goes on for long, the plan of a run, what it cannot show."""
SUITE_PROMPTS = 16
DONE = (0, 1, 3)
"""Exit codes of commands that did their work."""
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

    @property
    def report(self) -> Any:
        """``json``, checked against the published schema of reports."""
        from edgedistill.verify.report.json_schema import SCHEMA_PATH

        jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text())).validate(self.json)
        return self.json

    def one_error(self, code: int = 2) -> str:
        """The message of a refusal: one line after those of stages, nothing on stdout, the exit code."""
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


def here(
    *arguments: object, stdin: str = "", home: Path | None = None, interrupted: bool = False, **extra: str
) -> Result:
    """The same in this process; what native code writes to stdout and stderr is caught as well.

    ``interrupted``: the test itself interrupts the command. Otherwise it is somebody who stops the tests.

    Libraries read their environment when they are imported: ``home`` and ``extra`` reach edgedistill, not the client of
    the Hub.
    """
    from edgedistill.cli import main
    from edgedistill.errors import EXIT_INTERRUPTED

    with ExitStack() as stack:
        given, out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        given.write(stdin.encode("utf-8", "surrogateescape"))
        given.seek(0)
        for number, (name, file) in enumerate((("stdin", given), ("stdout", out), ("stderr", err))):
            stack.enter_context(_stream(number, name, file))
        stack.enter_context(mock.patch.dict(os.environ, environment(home, **extra), clear=True))
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if code not in DONE:
            gc.collect()  # sessions of a refused command hang on its traceback
        if code == EXIT_INTERRUPTED and not interrupted:
            raise KeyboardInterrupt
        sys.stdout.flush()
        sys.stderr.flush()
        out.seek(0)
        err.seek(0)
        return Result(code, out.read().decode(), err.read().decode())


@contextmanager
def _stream(number: int, name: str, file: BinaryIO) -> Iterator[None]:
    """File descriptor ``number`` and ``sys.NAME`` are ``file`` meanwhile."""
    if number:
        getattr(sys, name).flush()
    before = os.dup(number)
    os.dup2(file.fileno(), number)
    text = os.fdopen(number, "w" if number else "r", encoding="utf-8", closefd=False)
    try:
        with mock.patch.object(sys, name, text):
            yield
            if number:
                text.flush()
    finally:
        text.close()
        os.dup2(before, number)
        os.close(before)
