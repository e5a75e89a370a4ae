"""Every shell and Python block of the README and of the site runs, page by page, or says why it does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from doc_blocks import RUNNABLE, Block, Reader, blocks, commands

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_BLOCKS = [page for page in PAGES if any(b.language in RUNNABLE and not b.reason for b in blocks(page.read_text()))]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for all pages: traces and samples that one of them made are there for the next."""
    return tmp_path_factory.mktemp("home")


def _follow(page: Path, home: Path, directory: Path, *, slow: bool) -> None:
    shutil.copytree(ROOT / "src/edgedistill/catalog/models/tiny-reasoner", directory / "my-student")
    reader = Reader(directory, home, {})
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language in RUNNABLE and not block.reason and (slow or not block.slow):
            try:
                reader.follow(block)
            except Exception as error:
                raise AssertionError(f"{_name(page)}, line {block.line}: {error}") from error


@pytest.mark.parametrize("page", WITH_BLOCKS, ids=_name)
def test_the_quick_blocks_of_a_page_run(
    page: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _follow(page, home, tmp_path, slow=False)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("page", [p for p in WITH_BLOCKS if any(b.slow for b in blocks(p.read_text()))], ids=_name)
def test_all_blocks_of_a_page_run(page: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _follow(page, home, tmp_path, slow=True)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_a_fence_says_what_it_holds(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        at = f"{_name(page)}, line {block.line}"
        assert block.language, f"{at}: the fence names no language"
        if block.language not in RUNNABLE:
            told = [line for line in block.text.splitlines() if line.startswith(("edgedistill ", "make ", "pip "))]
            assert not told, f"{at}: commands in a block that is not run: {told[0]}"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_markers_and_commands_are_read() -> None:
    page = """\
<!-- not run: it sends a letter -->
```bash
send letter
```

<!-- slow: minutes -->
<!-- may exit 1, 3: the verdict is not the page's -->
```bash
one --a \\
  --b   # why
cat > f <<'END'
# kept
END
```

```text
output
```
"""
    first, second, third = blocks(page)
    assert first == Block("bash", "send letter", 2, reason="it sends a letter")
    assert (second.slow, second.codes, second.reason) == (True, (0, 1, 3), None)
    assert commands(second.text) == ["one --a   --b   # why", "cat > f <<'END'\n# kept\nEND"]
    assert (third.language, third.codes) == ("text", (0,))


def test_a_command_that_fails_fails_its_page(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reader = Reader(tmp_path, home, {})
    for text in ("edgedistill inspect nowhere", "edgedistill inspect nowhere | cat", "edgedistill run --what"):
        with pytest.raises(AssertionError, match="ended with 2"):
            reader.follow(Block("bash", text, 1))
