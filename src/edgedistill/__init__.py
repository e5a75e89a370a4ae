"""edgedistill: export, quantize, verify and run small reasoning-distilled language models on a CPU.

    >>> import edgedistill
    >>> edgedistill.export("tiny-reasoner", "my-bundle", profile="laptop-cpu")
    >>> model = edgedistill.open_bundle("my-bundle")
    >>> print(model.generate("What is 12 + 30?").answer)

Importing this package is cheap: the exporter and the runtime load when they are first used.
"""

from __future__ import annotations

import os as _os
import sys as _sys
import types as _types
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from edgedistill._version import __version__
from edgedistill.errors import EdgedistillError
from edgedistill.verbs import audit, compare, export, open_bundle, plan, tune, verify

if _TYPE_CHECKING:
    from edgedistill.comparison.options import CompareOptions
    from edgedistill.comparison.result import Comparison
    from edgedistill.export.options import ExportOptions
    from edgedistill.export.pipeline import ExportResult
    from edgedistill.planning.options import PlanOptions
    from edgedistill.planning.planner import PlanReport
    from edgedistill.runtime.conversation import Conversation
    from edgedistill.runtime.events import Event, Generation
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.settings import GenerationSettings
    from edgedistill.trajectories.options import TrajectoryOptions
    from edgedistill.trajectories.result import TrajectoryResult
    from edgedistill.trajectories.run import solve
    from edgedistill.tune.options import TuneOptions, TuneResult
    from edgedistill.verify.options import AuditOptions, VerifyOptions
    from edgedistill.verify.report.model import VerifyReport
    from edgedistill.verify.suites.options import SuiteOptions
    from edgedistill.verify.suites.registry import load_suite
    from edgedistill.verify.types import Suite

# Since 1.32 the wheels of ONNX Runtime (and of onnxruntime-genai) report usage over the network, with an identifier
# kept in the user's cache, unless this is set before they are loaded. What runs on a device stays there; =0 leaves it
# on.
_os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = [
    "AuditOptions", "CompareOptions", "Comparison", "Conversation", "EdgedistillError", "Event", "ExportOptions",
    "ExportResult", "Generation", "GenerationSettings", "Model", "PlanOptions", "PlanReport", "Suite", "SuiteOptions",
    "TrajectoryOptions", "TrajectoryResult", "TuneOptions", "TuneResult", "VerifyOptions", "VerifyReport",
    "__version__", "audit", "compare", "export", "load_suite", "open_bundle", "plan", "solve", "tune", "verify",
]  # fmt: skip

_LAZY = {
    "AuditOptions": "verify.options",
    "CompareOptions": "comparison.options",
    "Comparison": "comparison.result",
    "Conversation": "runtime.conversation",
    "Event": "runtime.events",
    "ExportOptions": "export.options",
    "ExportResult": "export.pipeline",
    "Generation": "runtime.events",
    "GenerationSettings": "runtime.settings",
    "Model": "runtime.model",
    "PlanOptions": "planning.options",
    "PlanReport": "planning.planner",
    "Suite": "verify.types",
    "SuiteOptions": "verify.suites.options",
    "TrajectoryOptions": "trajectories.options",
    "TrajectoryResult": "trajectories.result",
    "TuneOptions": "tune.options",
    "TuneResult": "tune.options",
    "VerifyOptions": "verify.options",
    "VerifyReport": "verify.report.model",
    "load_suite": "verify.suites.registry",
    "solve": "trajectories.run",
}


class _Package(_types.ModuleType):
    """Keeps verbs that share their name with a package functions: importing the package would set the name anew."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, _types.ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted(__all__)


_sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> _Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
