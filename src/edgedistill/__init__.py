"""edgedistill: export, quantize, verify and run small reasoning-distilled language models on a CPU.

    >>> import edgedistill
    >>> edgedistill.export("tiny-reasoner", "my-bundle", profile="laptop-cpu")
    >>> model = edgedistill.open_bundle("my-bundle")
    >>> print(model.generate("What is 12 + 30?").answer)

Importing this package is cheap: the exporter and the runtime load when they are first used.
"""

from __future__ import annotations

import os
import sys
import types
from typing import TYPE_CHECKING, Any

from edgedistill._version import __version__
from edgedistill.errors import EdgedistillError

if TYPE_CHECKING:
    from edgedistill.export.pipeline import ExportResult
    from edgedistill.runtime.model import Model, open_bundle
    from edgedistill.trajectories.options import TrajectoryOptions
    from edgedistill.trajectories.result import TrajectoryResult
    from edgedistill.trajectories.run import solve
    from edgedistill.verify.report.model import VerifyReport
    from edgedistill.verify.run import verify
    from edgedistill.workflow.export import export

# Since 1.32 the wheels of ONNX Runtime (and of onnxruntime-genai) report usage over the network, with an identifier
# kept in the user's cache, unless this is set before they are loaded. What runs on a device stays there; =0 leaves it
# on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "EdgedistillError",
    "ExportResult",
    "Model",
    "TrajectoryOptions",
    "TrajectoryResult",
    "VerifyReport",
    "__version__",
    "export",
    "open_bundle",
    "solve",
    "verify",
]


class _Package(types.ModuleType):
    """Keeps ``export`` and ``verify`` the functions: importing the packages of these names would set them anew."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _LAZY and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

_LAZY = {
    "export": "edgedistill.workflow.export",
    "ExportResult": "edgedistill.export.pipeline",
    "verify": "edgedistill.verify.run",
    "VerifyReport": "edgedistill.verify.report.model",
    "open_bundle": "edgedistill.runtime.model",
    "Model": "edgedistill.runtime.model",
    "solve": "edgedistill.trajectories.run",
    "TrajectoryOptions": "edgedistill.trajectories.options",
    "TrajectoryResult": "edgedistill.trajectories.result",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    module = importlib.import_module(_LAZY[name])
    return getattr(module, name)
