"""A small part of ``make fuzz``: every parser on its corpus and a few hundred mutations of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from targets import TARGETS

from fuzz import execute, inputs

EXECUTIONS = 150
FEWER = {"database": 40, "report": 60}
"""Of targets whose every execution takes long: it writes a database, or reads 280 kB and writes them again."""


@pytest.mark.parametrize("target", TARGETS)
def test_a_parser_raises_only_typed_errors(target: str, tmp_path: Path) -> None:
    outcomes = [execute(target, data, tmp_path / "files") for data in inputs(target, FEWER.get(target, EXECUTIONS), 1)]
    assert [one for one in outcomes if one not in ("refused", "accepted")] == []
    # A damaged database or rescue file is moved or left aside: the UI starts all the same.
    expected = {"accepted"} if target in ("database", "rescue") else {"refused", "accepted"}
    assert expected <= set(outcomes)
