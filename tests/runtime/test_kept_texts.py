"""Personas and prompt templates in the user's configuration directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedistill.errors import UsageError
from edgedistill.runtime.text import kept_texts


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("platformdirs.user_config_path", lambda *_, **__: tmp_path)
    return tmp_path


def test_none_yet(config: Path) -> None:
    assert kept_texts.names("personas") == []
    assert str(config / "personas" / "NAME.md") in kept_texts.listing("personas")
    with pytest.raises(UsageError, match="There is no persona terse"):
        kept_texts.read("personas", "terse")


def test_personas_and_prompts(config: Path) -> None:
    for kind, name, text in [
        ("personas", "terse", "Answer in one word.\n"),
        ("prompts", "sum", "Sum up:\n{text}\nIn English {braces}."),
        ("prompts", "plain", "Translate into French."),
    ]:
        (config / kind).mkdir(exist_ok=True)
        (config / kind / f"{name}.md").write_text(text, encoding="utf-8")
    assert kept_texts.listing("prompts") == "plain, sum"
    assert kept_texts.read("personas", "terse") == "Answer in one word."
    assert kept_texts.filled("sum", "a b") == "Sum up:\na b\nIn English {braces}."
    assert kept_texts.filled("plain", "bread") == "Translate into French.\n\nbread"
    assert kept_texts.filled("plain", "") == "Translate into French."
    with pytest.raises(UsageError, match=r"no prompt pain.*Did you mean plain\?"):
        kept_texts.filled("pain", "")


@pytest.mark.parametrize("name", ["../secret", "..", "", "a/b", "a\\b"])
def test_no_name_leaves_the_directory(name: str, config: Path) -> None:
    (config / "secret.md").write_text("secret")
    (config / "personas").mkdir()
    with pytest.raises(UsageError, match="There is no persona"):
        kept_texts.read("personas", name)


def test_what_is_no_text(config: Path) -> None:
    (config / "personas").mkdir()
    (config / "personas" / "bad.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read as UTF-8"):
        kept_texts.read("personas", "bad")
