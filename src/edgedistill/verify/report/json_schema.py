"""The published schema of reports, ``report.schema.json``: derived from the classes, shipped as a file.

``python -m edgedistill.verify.report.json_schema`` writes it; a test compares the file with the classes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgedistill.json_codec import json_schema
from edgedistill.verify.report.model import NAMES, SCHEMA_VERSION, VerifyReport

SCHEMA_PATH = Path(__file__).with_name("report.schema.json")


def report_schema() -> dict[str, Any]:
    """The schema as the classes have it now."""
    identifier = f"urn:edgedistill:report:v{SCHEMA_VERSION}"
    return json_schema(VerifyReport, NAMES, title="edgedistill verification report", identifier=identifier)


def schema_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(report_schema(), indent=2) + "\n"


if __name__ == "__main__":
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
