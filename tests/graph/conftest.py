"""``--record-levels``: parity tests that pass are written into the table of families (``make families``).

A test module that says something about a family has a function ``recorded(params) -> (family, kind, what)``; an entry
is written where every test of it passed, and taken out where one failed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from family_cases import LEVELS

if TYPE_CHECKING:
    from collections.abc import Generator

_OPTION = "--record-levels"
_KEY: pytest.StashKey[dict[tuple[str, str, str], bool]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(_OPTION, action="store_true", help="write what the parity tests show into the table of families")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_KEY] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    recorded = getattr(getattr(item, "module", None), "recorded", None)
    if recorded is not None and hasattr(item, "callspec") and item.config.getoption(_OPTION, default=False):
        found = item.config.stash[_KEY]
        key = recorded(item.callspec.params)
        if report.failed or (report.when == "call" and report.passed):  # a skipped test says nothing, nor its teardown
            found[key] = found.get(key, True) and report.passed
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    found = session.config.stash[_KEY]
    if not found:
        return
    levels: dict[str, dict[str, list[str]]] = json.loads(LEVELS.read_text()) if LEVELS.exists() else {}
    for (family, kind, what), passed in found.items():
        entries = levels.setdefault(family, {}).setdefault(kind, [])
        # Of the versions of transformers, one of every major version is kept.
        entries[:] = [entry for entry in entries if entry.partition(".")[0] != what.partition(".")[0]]
        entries += [what] if passed else []
        entries.sort()
    ordered: dict[str, Any] = {name: {k: v for k, v in sorted(levels[name].items()) if v} for name in sorted(levels)}
    LEVELS.write_text(json.dumps(ordered, indent=1) + "\n")
