"""Verification: suites of prompts, statistics on sampled answers, and a gate that says how sure it is.

Everything here is NumPy on plain data, apart from the runner. The metrics' definitions, word for word as reports print
them, are in ``definitions``.

Must not know: the TUI, the CLI.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgedistill.verify.report.model import VerifyReport


class _CallablePackage(types.ModuleType):
    """``edgedistill.verify(...)`` is ``runner.verify``; callable for the reason that ``edgedistill.export`` is."""

    def __call__(self, *args: Any, **options: Any) -> VerifyReport:
        """Compare a bundle with its reference; see ``edgedistill.verify.run.verify``."""
        from edgedistill.verify.run import verify

        return verify(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage
