"""Generates the published JSON schema of reports, ``report.schema.json``, from the classes in ``model``.

``python -m edgedistill.verify.report.json_schema`` writes the file; a test compares it with the classes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgedistill.json_codec import json_schema
from edgedistill.verify.report.model import NAMES, SCHEMA_VERSION, VerifyReport

SCHEMA_PATH = Path(__file__).with_name("report.schema.json")


def report_schema() -> dict[str, Any]:
    """The schema of the present classes."""
    identifier = f"urn:edgedistill:report:v{SCHEMA_VERSION}"
    return json_schema(VerifyReport, NAMES, title="edgedistill verification report", identifier=identifier)


def schema_text() -> str:
    """The content of the file."""
    return json.dumps(report_schema(), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
