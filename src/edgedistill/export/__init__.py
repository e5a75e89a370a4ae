"""From a checkpoint to a bundle; ``edgedistill.export(...)`` is ``workflow.export``, which also looks at the result.

The package can be called because importing any of its modules makes it the attribute ``export`` of ``edgedistill``,
in place of a function of that name.
"""

from __future__ import annotations

import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgedistill.export.pipeline import ExportResult


class _CallablePackage(types.ModuleType):
    def __call__(self, *args: Any, **options: Any) -> ExportResult:
        """Export a model; see ``edgedistill.workflow.export.export`` (above this package: only the name lies here)."""
        from edgedistill.workflow.export import export

        return export(*args, **options)


sys.modules[__name__].__class__ = _CallablePackage
