"""``--time-limit`` and ``--memory-limit``: a whole command in a process that is ended when it exceeds them.

For bundles of strangers: a graph may loop for ever or ask for any amount of memory, also for some inputs only.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from edgedistill.errors import BundleError, ChildError, UsageError
from edgedistill.system.child import SUPERVISOR, end_with_supervisor, run_limited

if TYPE_CHECKING:
    import argparse

GB = 10**9


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add both options."""
    group = parser.add_argument_group("limits, for bundles that you do not trust")
    group.add_argument("--time-limit", type=float, metavar="SECONDS", help="end the command after so long")
    group.add_argument("--memory-limit", type=float, metavar="GB", help="end it when it takes more memory (10^9 bytes)")


def supervised(args: argparse.Namespace, arguments: list[str]) -> int | None:
    """The exit code of the command under supervision; None where it has no limits, or is under supervision already.

    Raises:
        UsageError: A limit that is none.
        BundleError: A limit was exceeded.
    """
    if SUPERVISOR in os.environ:
        end_with_supervisor()
        return None
    seconds, memory = getattr(args, "time_limit", None), getattr(args, "memory_limit", None)
    for name, value in (("--time-limit", seconds), ("--memory-limit", memory)):
        if value is not None and not 0 < value < 1e9:
            raise UsageError(f"{name} is {value:g}; expected a positive number.")
    if seconds is None and memory is None:
        return None
    command = [sys.executable, "-P", "-m", "edgedistill", *arguments]
    try:
        return run_limited(command, time_limit=seconds, memory_limit=None if memory is None else int(memory * GB))
    except ChildError as error:
        raise BundleError(
            f"The command was ended: {error}.", hint="Raise the limit, or use a bundle that you trust."
        ) from error
