"""``--trusted-key``: a command opens only bundles that this key has signed, in the processes that it starts too.

The option is passed on by the environment variable that has the same meaning, so that the terminal UI, its browser
sessions and measuring processes obey it like the command itself.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bundle.signature import TRUSTED_KEY

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


def add_option(parser: argparse._ActionsContainer) -> None:
    """Add ``--trusted-key``."""
    parser.add_argument(
        "--trusted-key",
        type=Path,
        metavar="FILE",
        help=f"open only bundles that this public key has signed, every hash compared (default: ${TRUSTED_KEY})",
    )


@contextmanager
def trusting(key: Path | None) -> Iterator[None]:
    """Within, ``key`` has to have signed every bundle that is opened; None: none has to be signed."""
    before = os.environ.pop(TRUSTED_KEY, None)
    if key is not None:
        os.environ[TRUSTED_KEY] = str(key.absolute())
    try:
        yield
    finally:
        os.environ.pop(TRUSTED_KEY, None)
        if before is not None:
            os.environ[TRUSTED_KEY] = before
