"""Where, when and with what a report is made."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from edgedistill.verify.report.build import Provenance


def provenance() -> Provenance:
    """Now, here, with these versions."""
    from edgedistill.system.hardware import detect

    found: dict[str, str] = {}
    for package in ("edgedistill", "onnxruntime", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["python"] = platform.python_version()
    return Provenance(datetime.now(UTC).isoformat(timespec="seconds"), found, detect(probe=False).details)
