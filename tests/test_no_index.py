"""Nothing tells anybody to install edgedistill by its name: it is not on the index, and might become another's."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from edgedistill.extras import PACKAGES, how_to_install

ROOT = Path(__file__).parents[1]
PLACES = ("src", "tui", "docs", "examples", "bench", "profiles", ".github")
FORBIDDEN = re.compile(
    r"""(?:pip3?|pipx|uv)\s(?:[\w=-]+\s)*?(?:install|tool|add|run|upgrade)\b   # an installer, in any of its forms
        [^\n|&;#]*?[\s'"]edgedistill(?:\[[\w,]+\])?(?:[=<>~!]=?[^\s]*)?(?=['"\s`.,;:)]|$)(?!\s*@)  # the bare name
        """,
    re.VERBOSE,
)


def _texts() -> list[Path]:
    found = [path for path in ROOT.iterdir() if path.is_file() and path.suffix in (".md", ".toml", ".yml", ".cff", "")]
    for place in PLACES:
        found += [path for path in (ROOT / place).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return found


@pytest.mark.parametrize(
    "text",
    [
        "pip install edgedistill",
        "pip install --upgrade edgedistill",
        "pip install 'edgedistill[torch]'",
        'pip install "edgedistill==0.1.0"',
        "python -m pip install edgedistill[export].",
        "uv tool install edgedistill",
        "pipx install edgedistill",
        "pip install torch edgedistill",
    ],
)
def test_what_is_looked_for_is_found(text: str) -> None:
    assert FORBIDDEN.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install '.[export]'",
        "pip install dist/edgedistill-*.whl",
        "pip install 'edgedistill-0.2.0-py3-none-any.whl[export]'",
        'pip install "edgedistill[export] @ git+https://github.com/OWNER/edgedistill@v0.2.0"',
        "env/bin/pip install ./edgedistill-*.whl && env/bin/edgedistill run my-bundle",
    ],
)
def test_what_works_today_is_not_found(text: str) -> None:
    assert not FORBIDDEN.search(text)


def test_nothing_tells_to_install_from_the_index() -> None:
    texts = _texts()
    assert len(texts) > 300
    for path in texts:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        # Words that one string literal breaks over two lines are one sentence for the reader.
        found = FORBIDDEN.search(re.sub(r'"\n\s*f?"', "", text))
        assert found is None, f"{path.relative_to(ROOT)}: {found[0]!r}"


def test_hints_of_errors_do_not_either() -> None:
    for extra in PACKAGES:
        assert not FORBIDDEN.search(how_to_install(extra))


def test_the_placeholder_of_the_repository_is_the_same_everywhere() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a clone")
    owners: dict[str, list[str]] = {}
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.suffix in (".md", ".toml", ".yml", ".cff", ".py") and path.is_file():
            for owner in re.findall(r"github\.com/([\w-]+)/edgedistill", path.read_text(encoding="utf-8")):
                owners.setdefault(owner, []).append(name)
    assert len(owners) <= 1, owners
