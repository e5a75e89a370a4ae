"""What the README of profiles and the default profile's comments say is what the code does."""

from __future__ import annotations

import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

import pytest

from edgedistill.profile.profile import (
    DEFAULT_PROFILE,
    Context,
    GenerationDefaults,
    Profile,
    Session,
    VerifyMargins,
    load_profile,
)

PROFILES = Path(__file__).parents[2] / "profiles"


TOP_LEVEL = ("name", "description", "verified_on", "reasoning_tags")
pytestmark = pytest.mark.usefixtures("user_dir")


def test_the_readme_documents_every_key_and_every_profile() -> None:
    readme = (PROFILES / "README.md").read_text(encoding="utf-8")
    for path in PROFILES.glob("*.toml"):
        assert f"| `{path.stem}`" in readme
    missing = []
    for field in fields(Profile):
        hint = get_type_hints(Profile)[field.name]
        keys = [field.name]
        section = readme
        if is_dataclass(hint):
            section = re.split(r"\n### ", readme.split(f"### `[{field.name}]`")[1])[0]
            keys = [part.name for part in fields(hint)]
        missing += [f"{field.name}.{key}" for key in keys if not is_dataclass(hint) or f"| `{key}` |" not in section]
    assert [key for key in missing if key.split(".")[0] not in TOP_LEVEL] == []
    for key in ("extends", *TOP_LEVEL):
        assert f"| `{key}` |" in readme


def test_the_readme_states_the_defaults() -> None:
    readme = (PROFILES / "README.md").read_text(encoding="utf-8")
    for defaults in (Session(), Context(), GenerationDefaults(), VerifyMargins()):
        for field in fields(defaults):
            value = getattr(defaults, field.name)
            row = next(line for line in readme.splitlines() if line.startswith(f"| `{field.name}` |"))
            stated = row.split("|")[3].strip().strip("`\"'")
            if field.name == "execution_provider":
                continue  # its one choice is its default
            if isinstance(value, bool):
                assert stated == str(value).lower()
            elif isinstance(value, int | float):
                assert float(stated) == value
            else:
                assert stated == ("none" if value is None else value)


def test_every_key_of_the_default_profile_is_commented() -> None:
    text = (PROFILES / "laptop-cpu.toml").read_text(encoding="utf-8")
    keys = set(re.findall(r"^(\w+) =", text, re.MULTILINE))
    profile = load_profile(DEFAULT_PROFILE)
    for part in (profile.target, profile.session, profile.context, profile.generation, profile.verify):
        assert {field.name for field in fields(part)} - {"seed", "memory_bandwidth_gbs", "cpu"} <= keys
