"""suite.schema.json: as the constants make it, and in agreement with what the reader takes and refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgedistill.errors import SuiteError
from edgedistill.verify.sampling.suite_check import check_suite, sentences
from edgedistill.verify.suites.files import ReadFile, read_file
from edgedistill.verify.suites.json_schema import SCHEMA_PATH, schema_text
from edgedistill.verify.suites.options import SuiteOptions
from edgedistill.verify.suites.registry import load_suite
from edgedistill.verify.types import Message, Prompt, Suite

VALIDATOR = jsonschema.Draft202012Validator(json.loads(SCHEMA_PATH.read_text(encoding="utf-8")))

GOOD: tuple[dict[str, Any], ...] = (
    {"prompt": "x", "answer": 1},
    {"id": 7, "prompt": "x", "answer": ["Paris", 2.5], "tags": ["a"], "other": {"deep": [1]}},
    {"prompt": "x", "answer": None},
    {"prompt": ""},
    {"messages": [{"role": "system", "content": "Brief."}, {"role": "user", "content": "x"}], "answer": "yes"},
    {"prompt": "x", "answer": 0.33, "tolerance": 0.01},
    {"prompt": "x", "choices": ["a", "b"], "answer": "b", "extract": "choice"},
    {"prompt": "x", "checks": [{"kind": "words-at-least", "n": 3}, {"kind": "contains", "words": ["a"]}]},
    {"prompt": "x", "tests": "f()", "extract": "code", "solution": "def f(): pass"},
    {"prompt": "x", "answer": "two words", "extract": "text"},
)
BAD: tuple[dict[str, Any], ...] = (
    {},
    {"prompt": 5},
    {"prompt": "x", "messages": [{"role": "user", "content": "x"}]},
    {"messages": []},
    {"messages": [{"role": "robot", "content": "x"}]},
    {"messages": [{"role": "user"}]},
    {"prompt": "x", "answer": True},
    {"prompt": "x", "answer": []},
    {"prompt": "x", "answer": [["a"]]},
    {"prompt": "x", "answer": ""},
    {"prompt": "x", "answer": 1, "tolerance": -1},
    {"prompt": "x", "choices": ["a"], "answer": "a"},
    {"prompt": "x", "extract": "regex"},
    {"prompt": "x", "tags": "a"},
    {"prompt": "x", "tags": ["a"] * 65},
    {"prompt": "x", "checks": [{"kind": "rhymes"}]},
    {"prompt": "x", "checks": [{"kind": "lines"}]},
    {"prompt": "x", "checks": [{"kind": "lines", "n": -1}]},
    {"prompt": "x", "checks": [{"kind": "contains", "words": []}]},
    {"prompt": "x", "variant": "other"},
    {"prompt": "x", "id": ""},
    {"prompt": "x", "solution": ""},
)


def test_the_file_is_what_the_constants_make() -> None:
    assert SCHEMA_PATH.read_text(encoding="utf-8") == schema_text(), "run: python -m ...suites.json_schema"


@pytest.mark.parametrize(("record", "good"), [*((one, True) for one in GOOD), *((one, False) for one in BAD)])
def test_schema_and_reader_agree(tmp_path: Path, record: dict[str, Any], good: bool) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(record))
    assert VALIDATOR.is_valid(record) is good
    if good:
        assert load_suite(path, SuiteOptions(allow_code=True)).prompts
    else:
        with pytest.raises(SuiteError):
            load_suite(path, SuiteOptions(allow_code=True))


def test_headers(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    for header, good in (
        ({"suite": "s", "sampling": {"temperature": 0.5, "top_k": 3}}, True),
        ({"suite": "s", "sampling": {"temperature": -1}}, False),
        ({"suite": "s", "sampling": {"seed": 1}}, False),
        ({"suite": " "}, False),
    ):
        path.write_text(json.dumps(header) + '\n{"prompt": "x"}')
        assert VALIDATOR.is_valid(header) is good
        if good:
            assert load_suite(path).name == "s"
        else:
            with pytest.raises(SuiteError):
                load_suite(path)


# ---- what a check tells -------------------------------------------------------------------------------------------


def prompt(number: int, answer: str, **more: Any) -> Prompt:
    return Prompt(f"p{number}", (Message("user", f"{number}?"),), answer, **more)


def test_golds_that_no_reply_can_state_are_unread() -> None:
    """A formula under a rule that looks for letters."""
    suite = Suite("s", (prompt(1, "12"), prompt(2, "x^2+1", extract="choice"), prompt(3, "paris")))
    found = check_suite(ReadFile(suite))
    assert found.types == {"number": 1, "expression": 1, "text": 1}
    assert [one.id for one in found.unread] == ["p2"]
    assert any("1 of 3 right answers cannot be read" in sentence for sentence in sentences(found))


def test_long_texts_are_doubtful() -> None:
    suite = Suite("s", (prompt(1, "king of whom nobody had ever heard word"), prompt(2, "yes")))
    found = check_suite(ReadFile(suite))
    assert found.long_texts == ("p1",)
    assert "word for word" in sentences(found)[0]


def test_built_in_suites_and_the_new_one_are_read_whole(tmp_path: Path) -> None:
    from edgedistill.cli.suite import NEW

    path = tmp_path / "new.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in NEW))
    assert all(VALIDATOR.is_valid(record) for record in NEW)
    for read in (read_file(path), ReadFile(load_suite("arithmetic")), ReadFile(load_suite("instructions"))):
        assert not sentences(check_suite(read))
