"""The ``edgedistill`` command: parse, call one verb, turn errors into one line and an exit code.

A new command is one file here, named as the command is, with examples, ``configure(parser)`` and ``run(args)``
(``parser.VerbModule``), a line in ``parser.VERBS``, and one in ``json_outputs.OUTPUTS`` for what it prints with
``--json``. A verb's file is imported when it is called, so that ``--help`` answers at once. ``console`` prints, the
only place that does; ``bundle_options``, ``generation`` and ``verification`` are what several commands share.

It holds no algorithm and calls the rooms below; no room imports it.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.errors import EXIT_FAIL, EXIT_INTERRUPTED, EXIT_USAGE, EdgedistillError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

EXIT_PIPE = 141
"""What a shell reports for a process that a closed pipe ended (128 + SIGPIPE)."""

_HINTS = {
    errno.ENOSPC: "Free some space or write to another disk.",
    errno.EDQUOT: "Free some space or write to another disk.",
    errno.EROFS: "Write to a directory on another disk.",
    errno.EACCES: "Choose a path that you may read and write.",
    errno.EPERM: "Choose a path that you may read and write.",
    errno.ENOENT: "Check the path.",
    errno.EMFILE: "Raise the limit with: ulimit -n 4096",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code. With EDGEDISTILL_TRACEBACK=1 errors keep their traceback."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _fail("interrupted.", EXIT_INTERRUPTED, prefix="")
    except BrokenPipeError:
        # The reader has gone; the interpreter would complain once more when it flushes stdout on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_PIPE
    except (EdgedistillError, OSError, MemoryError) as error:
        if os.environ.get("EDGEDISTILL_TRACEBACK"):
            raise
        return _report(error)
    return code


def _open_closed_streams() -> None:
    """Where the shell closed a stream (``>&-``) Python has None: what is printed there is lost, not the command."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - open to the end


def _dispatch(arguments: list[str]) -> int:
    import warnings

    from edgedistill.cli.parser import load_verb, parse

    warnings.showwarning = _show_warning

    args = parse(arguments)
    if args is None:
        return EXIT_USAGE
    if _has_limits(args):
        from edgedistill.cli.bundle_options import supervised

        if (code := supervised(args, arguments)) is not None:
            return code
    if (key := getattr(args, "trusted_key", None)) is None:
        return load_verb(args.verb).run(args)
    from edgedistill.cli.bundle_options import trusting

    with trusting(key):
        return load_verb(args.verb).run(args)


def _has_limits(args: argparse.Namespace) -> bool:
    given = (getattr(args, name, None) is not None for name in ("time_limit", "memory_limit"))
    return any(given) or "EDGEDISTILL_SUPERVISOR" in os.environ


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one line on stderr, without the place in the code that it came from."""
    console.problem(f"note: {' '.join(str(message).split())}")


def _report(error: EdgedistillError | OSError | MemoryError) -> int:
    if isinstance(error, EdgedistillError):
        return _fail(str(error), error.exit_code)
    if isinstance(error, MemoryError):
        hint = "Close other programs, or export with a shorter --context or fewer bits."
        return _fail(f"not enough memory. {hint}", EXIT_USAGE)
    where = f": {error.filename}" if error.filename is not None else ""
    hint = _HINTS.get(error.errno or 0, "")
    return _fail(f"{error.strerror or error}{where}. {hint}", EXIT_USAGE if error.errno else EXIT_FAIL)


def _fail(message: str, code: int, prefix: str = "error: ") -> int:
    console.problem(f"{prefix}{' '.join(message.split())}")
    return code
