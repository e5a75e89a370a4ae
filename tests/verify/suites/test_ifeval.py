"""IFEval's 25 verifiers: the verdicts of lm-evaluation-harness on the same replies, strict and loose.

``ifeval_lm_eval.json`` holds published records, replies, and what lm_eval 0.4.13 says of each pair, with NLTK's English
Punkt model and langdetect seeded with 0: "s" followed strictly, "l" loosely only, "-" not.
"""

from __future__ import annotations

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from edgedistill.errors import MissingExtraError, SuiteError
from edgedistill.verify.sampling.answers import read_reply
from edgedistill.verify.suites.checks import follows, validate
from edgedistill.verify.suites.files import read_file
from edgedistill.verify.suites.ifeval import IFEVAL, checks_of, sentence_count
from edgedistill.verify.suites.registry import load_suite
from edgedistill.verify.types import Check

pytest.importorskip("langdetect")
pytest.importorskip("punkt")
RECORDED = json.loads(Path(__file__).with_name("ifeval_lm_eval.json").read_text(encoding="utf-8"))
RECORDS = RECORDED["records"]


def test_all_25_are_recorded() -> None:
    assert len(IFEVAL) == 25
    assert {name for record in RECORDS for name in record["instruction_id_list"]} == set(IFEVAL)
    assert {verdict for row in RECORDED["verdicts"] for verdict in row} == set("sl-")


@pytest.mark.parametrize("at", range(len(RECORDS)), ids=lambda at: f"{at}-{RECORDS[at]['instruction_id_list'][0]}")
def test_the_verdicts_of_lm_eval(at: int) -> None:
    checks = checks_of(RECORDS[at], "record")
    found = ""
    for reply in RECORDED["replies"]:
        strict, loose = follows(checks, reply)
        found += "s" if strict else "l" if loose else "-"
    assert found == RECORDED["verdicts"][at]


def published(tmp_path: Path, *records: dict[str, Any]) -> Path:
    path = tmp_path / "ifeval.jsonl"
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def test_a_published_file_is_a_suite(tmp_path: Path) -> None:
    """With all parameters of all verifiers in every record, null but for its own, as the Hub has them."""
    names = {name for parameters, _ in IFEVAL.values() for name in parameters}
    records = [{**r, "kwargs": [{**dict.fromkeys(names), **r["kwargs"][0]}]} for r in RECORDS]
    path = published(tmp_path, *records)
    assert read_file(path).format == "IFEval"
    suite = load_suite(path)
    assert (len(suite.prompts), suite.prompts[0].id) == (len(RECORDS), str(RECORDS[0]["key"]))
    reply = read_reply(suite.prompts[0], "**A river** of stone", truncated=False)
    assert (reply.answer, reply.correct, reply.loose) == ("follows", True, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"instruction_id_list": ["keywords:rhymes"]}, "none of IFEval's 25"),
        ({"instruction_id_list": "x"}, "expected a list of names"),
        ({"kwargs": []}, "expected a list of 1 objects"),
        ({"kwargs": [{}]}, "expected `keywords`"),
        ({"kwargs": [{"keywords": "river"}]}, "expected a list of texts"),
    ],
)
def test_damage_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        load_suite(published(tmp_path, {**RECORDS[0], **change}))


def test_relations_are_the_published_two() -> None:
    given = (("num_words", 3), ("relation", "around"))
    with pytest.raises(SuiteError, match="'less than' or 'at least'"):
        validate(Check("length_constraints:number_words", given))


def test_a_missing_library_is_named_before_anything_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refused(name: str, *rest: Any, **more: Any) -> Any:
        if name in ("langdetect", "punkt"):
            raise ImportError(name=name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refused)
    language = Check("language:response_language", (("language", "de"),))
    for check in (Check("change_case:english_capital"), language):
        with pytest.raises(MissingExtraError, match="langdetect") as raised:
            validate(check)
        assert "the extra 'ifeval'" in (raised.value.hint or "")
    validate(Check("punctuation:no_comma"))


def test_sentences_end_where_people_end_them() -> None:
    assert sentence_count("Dr. Smith went to the U.S. in May. He paid $3.50. Fine!") == 3
