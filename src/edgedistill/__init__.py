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
    # The subpackages, which can be called: the attributes they become on import anyway.
    return sys.modules[f"edgedistill.{name}"] if name in ("export", "verify") else getattr(module, name)
