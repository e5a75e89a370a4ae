"""An export in a process of its own, its progress as JSON lines on stdout: ``python -m edgedistill.cli.export_child``.

Must not know: who reads it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.errors import EdgedistillError

if TYPE_CHECKING:
    from edgedistill.progress import Unit


class _Lines:
    """Progress as lines."""

    def begin(self, stage: str, total: int, unit: Unit) -> None:
        _say(kind="begin", stage=stage, total=total, unit=unit)

    def advance(self, amount: int) -> None:
        _say(kind="advance", amount=amount)

    def end(self) -> None:
        _say(kind="end")


def _say(**event: Any) -> None:
    print(json.dumps(event), flush=True)


def main() -> int:
    """Export ``argv[1]`` to ``argv[2]``."""
    from edgedistill.export.pipeline import export

    try:
        export(sys.argv[1], Path(sys.argv[2]), progress=_Lines())
    except (EdgedistillError, OSError, MemoryError) as error:
        _say(kind="error", message=str(error) or type(error).__name__)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
