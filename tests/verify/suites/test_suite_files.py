"""Suites from files: every format, and one clear line for every kind of damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgedistill.errors import SuiteError
from edgedistill.verify.suites.files import read_suite
from edgedistill.verify.suites.registry import load_suite
from edgedistill.verify.types import Message


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


def test_own_format(tmp_path: Path) -> None:
    suite = load_suite(
        write(
            tmp_path / "mine.jsonl",
            {"suite": "My suite", "sampling": {"temperature": 0.8, "max_new_tokens": 64}},
            {"id": "a", "prompt": "2+2?", "answer": 4, "tags": ["easy"]},
            "",
            {
                "id": 7,
                "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "?"}],
                "answer": ".50",
            },
            {"id": "a2", "prompt": "two and two?", "answer": "4", "variant": "paraphrase", "variant_of": "a"},
        )
    )
    assert suite.name == "My suite"
    assert suite.sampling.temperature == 0.8
    assert [(p.id, p.answer) for p in suite.prompts] == [("a", "4"), ("7", "1/2")]
    assert suite.prompts[1].messages == (Message("system", "Be brief."), Message("user", "?"))
    assert suite.variants[0].variant_of == "a"


def test_gsm8k(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path / "g.jsonl", {"question": "How much?", "answer": "1+1=<<1+1=2>>2\n#### 1,002"}))
    assert (suite.prompts[0].id, suite.prompts[0].answer) == ("g-00001", "1002")


def test_math(tmp_path: Path) -> None:
    suite = load_suite(
        write(
            tmp_path / "m.jsonl",
            {"problem": "?", "solution": r"so $\boxed{\frac{1}{2}}$.", "level": "Level 5", "type": "Algebra"},
            {"problem": "??", "answer": r"\frac{3}{4}", "solution": "x", "unique_id": "test/1.json"},
        )
    )
    assert [(p.answer, p.tags) for p in suite.prompts] == [("1/2", ("Level 5", "Algebra")), ("3/4", ())]
    assert suite.prompts[1].id == "test/1.json"


PUBLISHED = {
    "problem": "What is $1 + 1$?",
    "level": "Level 1",
    "type": "Prealgebra",
    "solution": "It is $\\boxed{2}$.",
}


def publish(path: Path, record: Any) -> None:
    """Write one of MATH's files, pretty-printed as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=4), encoding="utf-8")


def test_math_as_it_was_published(tmp_path: Path) -> None:
    root = tmp_path / "test"
    publish(root / "prealgebra" / "2.json", PUBLISHED)
    publish(root / "prealgebra" / "10.json", {**PUBLISHED, "solution": "so $\\boxed 9$."})
    publish(root / "algebra" / "7.json", {**PUBLISHED, "type": "Algebra", "solution": r"$\boxed{\frac{1}{2}}$"})
    publish(root / "algebra" / "._7.json", [])
    (root / "readme.txt").write_text("not a problem")
    (root / "algebra" / "up").symlink_to(root)
    suite = load_suite(root)
    assert suite.name == "test"
    assert [(p.id, p.answer, p.tags) for p in suite.prompts] == [
        ("algebra/7", "1/2", ("Level 1", "Algebra")),
        ("prealgebra/10", "9", ("Level 1", "Prealgebra")),
        ("prealgebra/2", "2", ("Level 1", "Prealgebra")),
    ]


def test_a_json_file_holds_an_array_or_an_object_or_lines(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    gsm8k = [{"question": f"{i}?", "answer": f"#### {i}"} for i in range(2)]
    publish(path, gsm8k)
    assert [(p.id, p.answer) for p in load_suite(path).prompts] == [("s-00001", "0"), ("s-00002", "1")]
    publish(path, [{"suite": "Mine", "sampling": {"top_k": 3}}, {"id": "a", "prompt": "x", "answer": 1}])
    suite = load_suite(path)
    assert (suite.name, suite.sampling.top_k, suite.prompts[0].id) == ("Mine", 3, "a")
    publish(path, gsm8k[1])
    assert [(p.id, p.answer) for p in load_suite(path).prompts] == [("s", "1")]
    write(path, *gsm8k)
    assert [p.id for p in load_suite(path).prompts] == ["s-00001", "s-00002"]
    path.write_text(json.dumps(gsm8k))
    assert len(load_suite(path).prompts) == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"has no \.json, .* files"),
        ({"a/1.json": []}, "suite has no prompts"),
        ({"a/1.json": PUBLISHED, "b/2.json": {"problem": "x", "solution": "1"}}, r"suite/b/2\.json: `solution` has no"),
        ({"1.json": [PUBLISHED, {"problem": 5}]}, r"suite/1\.json, entry 2: `problem` is a number"),
        ({"1.json": [PUBLISHED, 5]}, r"suite/1\.json, entry 2: found a number"),
        ({"1.json": 5}, r"suite/1\.json: found a number"),
        ({"1.json": PUBLISHED, "2.json": {"prompt": "x"}}, r"2\.json: the format is edgedistill, that .* MATH"),
        ({"1.json": [{"id": "x", **PUBLISHED}], "2.json": {"id": "x", **PUBLISHED}}, "suite: the id `x` occurs more"),
        ({"1.json": {"data": [PUBLISHED]}}, r"1\.json: found the keys 'data'"),
    ],
)
def test_damage_in_a_directory_is_named_with_its_file(tmp_path: Path, files: dict[str, Any], message: str) -> None:
    root = tmp_path / "suite"
    root.mkdir()
    for name, value in files.items():
        publish(root / name, value)
    with pytest.raises(SuiteError, match=message) as raised:
        load_suite(root)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n "problem": "x",\n}', r"s\.json: not JSON: .* at line 3, column 1"),
        ('[{"prompt": "x"}', r"s\.json: not JSON: .* at column 17"),
        ('{"prompt": "x"}\n{"prompt": ', r"s\.json, line 2: not JSON"),
        ('[{"prompt": "x", "prompt": "y"}]', "the key `prompt` occurs more than once"),
        ("", r"s\.json: not JSON"),
        ("[" * 100_000, r"s\.json: not JSON"),
    ],
)
def test_a_damaged_json_file(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.json"
    path.write_text(text)
    with pytest.raises(SuiteError, match=message) as raised:
        load_suite(path)
    assert "\n" not in str(raised.value)


def test_choice_and_text_answers(tmp_path: Path) -> None:
    suite = load_suite(
        write(
            tmp_path / "c.jsonl",
            {"prompt": "A or B?", "answer": "(B)", "extract": "choice"},
            {"prompt": "Say it", "answer": "Two  Words", "extract": "text"},
            {"prompt": "Small!", "checks": [{"kind": "lowercase"}]},
        )
    )
    assert [p.answer for p in suite.prompts] == ["B", "two words", None]
    assert suite.has_gold


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (['{"id": "a", '], "line 1: not JSON"),
        (['{"prompt": "x", "prompt": "y"}'], "the key `prompt` occurs more than once"),
        ([{"prompt": "x"}, "[1]"], "line 2: found a list"),
        ([{"prompt": "x"}, {"prompt": "y", "awnser": "1"}], "line 2: key `awnser` is unknown; did you mean `answer`"),
        (
            [{"prompt": "y", "gold": "1"}],
            "line 1: key `gold` is unknown; did you mean `answer`. Expected id, prompt, mess",
        ),
        ([{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}], "`a` occurs more than once"),
        ([{"prompt": "x", "messages": []}], "both `prompt` and `messages`"),
        ([{"messages": []}], "list of at least one message"),
        ([{"messages": [{"role": "user"}]}], r"`messages\[0\]`"),
        ([{"messages": [{"role": "robot", "content": "x"}]}], "`role` is 'robot'"),
        ([{"messages": [{"role": "assistant", "content": "x"}]}], "expected the user's"),
        ([{"prompt": 5}], "`prompt` is a number"),
        ([{"prompt": "x", "answer": ""}], "`answer` is ''"),
        ([{"prompt": "x", "answer": [[1]]}], r"`answer\[0\]` is a list"),
        ([{"prompt": "x", "extract": "regex"}], "`extract` is 'regex'"),
        ([{"prompt": "x", "variant": "other"}], "`variant` is 'other'"),
        ([{"prompt": "x", "tags": "a"}], "`tags`"),
        ([{"prompt": "x", "id": ""}], "`id` is an empty text"),
        ([{"prompt": "x", "checks": [{"n": 1}]}], r"`checks\[0\]` has no `kind`"),
        (
            [{"prompt": "x"}, {"question": "y", "answer": "#### 1"}],
            "line 2: the format is GSM8K, that of what came before edgedistill",
        ),
        ([{"question": "y", "answer": "####"}], "nothing follows `####`"),
        ([{"question": "y", "answer": "#### 1"}, {"question": "y", "answer": "1"}], "the format is questions, that"),
        ([{"problem": "y", "solution": "1"}], r"no \\boxed"),
        ([{"text": "y"}], "expected `prompt` or `messages`"),
        ([{"suite": "s", "sampling": {"temperatur": 1}}], "did you mean `temperature`"),
        ([{"suite": "s", "sampling": {"top_p": 2}}], "from 0.0 to 1.0"),
        ([{"suite": "s"}], "has no prompts"),
        (['{"prompt": "x", "answer": NaN}'], "NaN is not a JSON number"),
        (['{"prompt": "\\ud800"}'], "surrogate"),
        ([], "has no prompts"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path: Path, records: list[Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        load_suite(write(tmp_path / "s.jsonl", *records))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match="cannot be read"):
        load_suite(tmp_path / "none.jsonl")


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"prompt": "x"}\n{"prompt": "\xff"}\n')
    with pytest.raises(SuiteError, match="line 2: not UTF-8"):
        read_suite(path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:0123456789promtanswe \n', max_size=200).map(str.encode))
def test_no_file_does_anything_but_load_or_be_refused(tmp_path: Path, data: bytes) -> None:
    for path in (tmp_path / "fuzz.jsonl", tmp_path / "fuzz.json"):
        path.write_bytes(data)
        try:
            suite = load_suite(path)
        except SuiteError as error:
            message = str(error)
        else:
            message = ""
            assert suite.prompts
        assert "\n" not in message


KEYS = st.sampled_from(
    [
        "id",
        "prompt",
        "messages",
        "answer",
        "extract",
        "tags",
        "checks",
        "variant",
        "variant_of",
        "suite",
        "sampling",
        "question",
        "problem",
        "solution",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6) | KEYS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, min_size=1, max_size=5), min_size=1, max_size=3))
def test_no_object_does_anything_but_load_or_be_refused(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    try:
        suite = load_suite(write(tmp_path / "fuzz.jsonl", *records))
    except SuiteError:
        return
    assert len(suite.sha256) == 64


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1, max_size=40).filter(str.strip), st.integers()), min_size=1, max_size=5))
def test_what_was_written_is_read(tmp_path: Path, rows: list[tuple[str, int]]) -> None:
    records = [{"id": f"p{i}", "prompt": text, "answer": answer} for i, (text, answer) in enumerate(rows)]
    suite = load_suite(write(tmp_path / "s.jsonl", *records))
    assert [(p.messages[0].content, p.answer) for p in suite.prompts] == [(text, str(answer)) for text, answer in rows]
