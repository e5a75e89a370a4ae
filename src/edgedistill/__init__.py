"""edgedistill: export, quantize, verify and run small reasoning-distilled language models on a CPU.

    >>> import edgedistill
    >>> edgedistill.export("tiny-reasoner", "my-bundle", profile="laptop-cpu")
    >>> model = edgedistill.open_bundle("my-bundle")
    >>> print(model.generate("What is 12 + 30?").answer)

Importing this package is cheap: the exporter and the runtime load when they are first used.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from edgedistill._version import __version__
from edgedistill.errors import EdgedistillError

if TYPE_CHECKING:
    from edgedistill.export.pipeline import ExportResult, export
    from edgedistill.runtime.model import Model, open_bundle

__all__ = ["EdgedistillError", "ExportResult", "Model", "__version__", "export", "open_bundle"]

_LAZY = {
    "export": "edgedistill.export.pipeline",
    "ExportResult": "edgedistill.export.pipeline",
    "open_bundle": "edgedistill.runtime.model",
    "Model": "edgedistill.runtime.model",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(_LAZY[name])
    # The subpackage, which can be called: the attribute it becomes on import anyway.
    return sys.modules["edgedistill.export"] if name == "export" else getattr(module, name)
