"""What every command that opens a bundle shares: its argument, ``--trusted-key``, ``--time-limit``, ``--memory-limit``.

A model in place of a bundle is exported once into the user's cache, the bundle of a Hub repository pulled there. The
limits put the command into a process that is ended when it exceeds them: a graph may loop for ever or ask for any
amount of memory, also for some inputs only.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bundle.bundle import MANIFEST
from edgedistill.bundle.signature import TRUSTED_KEY
from edgedistill.cli import console
from edgedistill.errors import BundleError, ChildError, UsageError
from edgedistill.system.child import SUPERVISOR, end_with_supervisor, run_limited
from edgedistill.units import format_bytes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

GB = 10**9
MODEL_HELP = (
    "bundle directory; or a model (built-in name, checkpoint, GGUF file, Hub id), which is exported once; or a Hub id "
    "of a bundle, which is pulled once"
)


def bundle_path(named: Path) -> Path:
    """The bundle directory that ``named`` means; errors: see ``workflow.by_name.bundle_of``."""
    if (named / MANIFEST).is_file():
        return named
    from edgedistill.profile.profile import DEFAULT_PROFILE
    from edgedistill.workflow.by_name import bundle_of

    def exporting(path: Path) -> None:
        console.note(f"exporting {named} for {DEFAULT_PROFILE} to {path}; later runs use it again")

    def pulling(path: Path, size: int) -> None:
        console.note(f"pulling the bundle {named.as_posix()} ({format_bytes(size)}) to {path}; later runs use it again")

    with console.progress() as progress:
        return bundle_of(named, progress=progress, on_export=exporting, on_pull=pulling)


def add_trusted_key(parser: argparse._ActionsContainer) -> None:
    """Add ``--trusted-key``."""
    parser.add_argument(
        "--trusted-key",
        type=Path,
        metavar="FILE",
        help=f"open only bundles that this public key has signed, every hash compared (default: ${TRUSTED_KEY})",
    )


@contextmanager
def trusting(key: Path | None) -> Iterator[None]:
    """Within, ``key`` has to have signed every bundle that is opened; None: none has to be signed.

    It is passed on by the environment variable of that meaning, so that the terminal UI, its browser sessions and
    measuring processes obey it too.
    """
    before = os.environ.pop(TRUSTED_KEY, None)
    if key is not None:
        os.environ[TRUSTED_KEY] = str(key.absolute())
    try:
        yield
    finally:
        os.environ.pop(TRUSTED_KEY, None)
        if before is not None:
            os.environ[TRUSTED_KEY] = before


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add ``--time-limit`` and ``--memory-limit``."""
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
