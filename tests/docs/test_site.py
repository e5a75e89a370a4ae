"""What the site takes from elsewhere: the generated reference, the picture, the list of environment variables."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _generators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs/generate"))


def test_the_page_of_commands_has_every_command_and_option() -> None:
    from commands import page  # type: ignore[import-not-found]

    from edgedistill.cli.parser import VERBS

    text = page()
    for verb in VERBS:
        assert f"## edgedistill {verb.name}" in text
    assert "### edgedistill profiles detect" in text
    assert "`-o" in text
    assert "`--bits-per-weight" in text


def test_the_pages_of_formats_have_every_field() -> None:
    from dataclasses import fields

    from data_formats import bundle_page, report_page, suite_page  # type: ignore[import-not-found]

    from edgedistill.bundle.manifest import Manifest
    from edgedistill.verify.suites.checks import KINDS

    assert all(f"| `{field.name}` |" in bundle_page() for field in fields(Manifest))
    assert all(f"| `{name}` |" in suite_page() for name in KINDS)
    report = report_page()
    for link in set(re.findall(r"\]\(#(\w+)\)", report)):
        assert re.search(rf"^## {link}$", report, re.MULTILINE | re.IGNORECASE), link


def test_the_page_of_the_architecture_has_every_room() -> None:
    from architecture import page  # type: ignore[import-not-found]

    text = page(ROOT)
    assert "| `edgedistill.quantize` | Weight quantization" in text
    assert "| `edgedistill.verify.metrics` |" in text


def test_the_picture_is_that_of_the_table() -> None:
    from picture import PICTURE, picture, points  # type: ignore[import-not-found]

    rows = points((ROOT / "docs/benchmarks.md").read_text(encoding="utf-8"))
    assert len(rows) == 16
    assert picture(rows) == PICTURE.read_text(encoding="utf-8"), "run: python docs/generate/picture.py"


def test_the_readmes_numbers_are_those_of_the_benchmarks() -> None:
    benchmarks = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (edgedistill|llama\.cpp), (.+?) \| ([\d.]+) \| ([\d.]+) \| (\d+) \|$",
                      (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)  # fmt: skip
    assert len(rows) == 9
    for engine, _, size, kl, memory in rows:
        pattern = rf"^\| {re.escape(engine)} \| [^|]+ \| {size}(?: \([\d.]+\))? \| [\d.]+ \| ([\d.]+) .*\| {memory} \|$"
        row = next((one for one in re.findall(pattern, benchmarks, re.MULTILINE) if f"{float(one):.3f}" == kl), None)
        assert row, (engine, size, kl, memory)


def test_the_page_of_environment_variables_is_complete() -> None:
    """Every name that the code looks up, and none that it does not."""
    told = set(re.findall(r"`([A-Z][A-Z_]+)`", (ROOT / "docs/reference/environment.md").read_text(encoding="utf-8")))
    texts = [p.read_text(encoding="utf-8") for tree in ("src", "tui") for p in (ROOT / tree).rglob("*.py")]
    used = {
        node.value
        for text in texts
        if "EDGEDISTILL_" in text
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        and re.fullmatch(r"EDGEDISTILL_[A-Z_]+", node.value)
    }  # fmt: skip
    assert used == {name for name in told if name.startswith("EDGEDISTILL_")}
    code = "".join(texts)
    assert not [name for name in told - {"TMPDIR"} if name not in code]


_OF_OTHERS = {"--constraint", "--extra-index-url", "--no-deps", "--strict"}
"""Options of pip and mypy."""


def _of_benchmarks() -> set[str]:
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "bench").glob("*.py"))
    return set(re.findall(r'add_argument\(\s*"(--[a-z][a-z-]+)"', scripts))


@pytest.mark.parametrize(
    "path", ["README.md", "SECURITY.md", *(str(p.relative_to(ROOT)) for p in sorted((ROOT / "docs").rglob("*.md")))]
)
def test_options_named_in_running_text_exist(path: str) -> None:
    """Blocks of commands are run, page by page, in test_pages.py; this is for the sentences around them."""
    from commands import page

    known = set(re.findall(r"--[a-z][a-z-]+", page())) | _OF_OTHERS | _of_benchmarks()
    text = re.sub(r"```.*?```", "", (ROOT / path).read_text(encoding="utf-8"), flags=re.DOTALL)
    named = {
        found for span in re.findall(r"`([^`\n]+)`", text) for found in re.findall(r"(?<![\w-])--[a-z][a-z-]+", span)
    }
    assert sorted(named - known) == []
