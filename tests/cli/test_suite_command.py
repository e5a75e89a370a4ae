"""``edgedistill suite`` and the options that say how a suite's file is read, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from cli_support import edgedistill, here


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "q.jsonl"
    assert here("suite", "new", path).code == 0
    return path


def test_new_is_checked_and_shown(questions: Path, tiny_bundle_dir: Path) -> None:
    done = edgedistill("suite", "check", questions)
    assert (done.code, done.err) == (0, "")
    assert "6 and 1 variants" in done.out
    assert "user: What is 12 + 30?" in done.out
    found = here("suite", "check", questions, "--json", "--bundle", tiny_bundle_dir).json
    assert (found["golds"], found["unread"], found["warnings"]) == (6, [], [])
    assert found["example"]["golds"] == ["42"]
    assert "What is 12 + 30?" in found["rendered"] != "user: What is 12 + 30?"
    shown = here("suite", "show", questions, "--id", "planet")
    assert "C. Mars" in shown.out
    assert "right: B (read by choice)" in shown.out


def test_what_is_shown_as_json_is_the_format(questions: Path, tmp_path: Path) -> None:
    for name in (questions, "instructions"):
        records = here("suite", "show", name, "--json", "--prompts", 50).json
        schema = json.loads(here("suite", "schema").out)
        for record in records:
            jsonschema.Draft202012Validator(schema).validate(record)
        again = tmp_path / "again.json"
        again.write_text(json.dumps(records))
        assert here("suite", "show", again, "--json", "--prompts", 50).json == records


def test_nothing_is_overwritten(questions: Path) -> None:
    assert "already exists" in here("suite", "new", questions).one_error()
    assert here("suite", "new", questions, "--force").code == 0
    assert "is a directory" in here("suite", "new", questions.parent).one_error()
    assert "cannot be written" in here("suite", "new", questions / "x.jsonl").one_error()


def test_right_answers_that_cannot_be_read_are_an_exit_code(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text('{"prompt": "x", "answer": "x > 2", "extract": "number"}\n{"prompt": "y", "answer": "3"}\n')
    done = here("suite", "check", path)
    assert done.code == 1
    assert "unread         1" in done.out
    assert "1 of 2 right answers cannot be read" in done.out


def test_files_of_anyone_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("ask,right,level\nWhat is 1+1?,2,easy\n")
    assert "--map prompt=KEY,gold=KEY" in here("suite", "check", path).one_error()
    options = ("--map", "prompt=ask,gold=right,tags=level", "--template", "{prompt}\\nAnswer ({level}):")
    found = here("suite", "check", path, *options, "--json").json
    assert found["example"]["messages"][0]["content"] == "What is 1+1?\nAnswer (easy):"
    template = tmp_path / "t.txt"
    template.write_text("Q: {prompt}")
    found = here("suite", "check", path, *options[:2], "--template", f"@{template}", "--json").json
    assert found["rendered"] == "user: Q: What is 1+1?"
    for bad, told in (
        (("--map", "prompt"), "MEANING=COLUMN"),
        (("--template", "@nowhere"), "cannot be read"),
        (("--few-shot", "-1"), "0 to 64"),
        (("--split", "tests"), "did you mean `test`"),
        (("--tolerance", "-1"), "a number from 0"),
    ):
        assert told in here("suite", "check", path, *options[:2], *bad).one_error()


def test_a_published_suite_is_scored_and_doubts_are_told_before_sampling(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    long = "it is the one that nobody had ever thought of before"
    rows = [{"question": f"Say {i}", "answer": long if i else "Paris"} for i in range(2)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    done = here("audit", tiny_bundle_dir, "--suite", path, "--samples", 6, "--no-store", "-n", 24, "--json")
    assert done.report["suite"]["gold"] is True
    assert "warning: 1 right answers are texts of more than 6 words" in done.err


def test_choices_by_likelihood_and_refused_programs(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    row = {"ctx": "A man sits.", "endings": ["He stands.", "No.", "Up", "Rain"], "label": 0}
    path.write_text("\n".join(json.dumps({**row, "label": i}) for i in range(4)))
    done = here("audit", tiny_bundle_dir, "--suite", path, "--samples", 2, "--no-store", "--json")
    assert done.report["bundle_result"]["accuracy"]["value"] == 0.25, "one choice, whatever is asked"
    path.write_text(json.dumps({"prompt": "Write f.", "tests": "f()"}))
    assert "--allow-code" in here("audit", tiny_bundle_dir, "--suite", path, "--no-store").one_error()


def test_a_second_opinion_is_shown_beside_the_keys(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    path = tmp_path / "s.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": f"Say {i}", "extract": "text"}) for i in range(4)))
    command = ("audit", tiny_bundle_dir, "--suite", path, "--samples", 4, "--no-store", "-n", 24, "--second-opinion")
    done = here(*command, "--json")
    found = done.report["bundle_extras"]["second_opinion"]
    assert found["judge"].startswith("math-verify ")
    assert found["asked"] == 0, "texts are not asked about"
    assert found["agreement"] == done.report["bundle_result"]["agreement"]
    assert "... pairs of answers" in here(*command).out
