"""Published suites, a record of each as it is distributed: question, gold, choices, what a good reply scores."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from edgedistill.errors import SuiteError, UsageError
from edgedistill.verify.sampling.answers import answer_of, read_reply
from edgedistill.verify.suites.files import read_file
from edgedistill.verify.suites.options import SuiteOptions, parse_map
from edgedistill.verify.suites.registry import load_suite
from edgedistill.verify.types import Prompt

MMLU = {"question": "Which is a prime?", "subject": "mathematics", "choices": ["4", "6", "7", "9"], "answer": 2}
PUBLISHED: dict[str, tuple[dict[str, Any], str, str | None, str]] = {
    # name: (record, format, gold, a right reply)
    "gsm8k": ({"question": "How much?", "answer": "1+1=<<1+1=2>>2\n#### 1,002"}, "GSM8K", "1002", "So 1,002."),
    "math": (
        {"problem": "?", "level": "Level 5", "type": "Algebra", "solution": r"so $\boxed{\frac{1}{2}}$."},
        "MATH", "1/2", r"\boxed{0.5}",
    ),
    "math-500": (
        {"problem": "?", "solution": "x", "answer": r"\left( 3, \frac{\pi}{2} \right)", "subject": "Precalculus",
         "level": 2, "unique_id": "test/precalculus/807.json"},
        "MATH", "(3,pi/2)", r"The answer is $(3,\pi/2)$.",
    ),
    "aime24 (Maxwell-Jia)": (
        {"ID": "2024-II-4", "Problem": "?", "Solution": "...", "Answer": 33}, "MATH", "33", r"\boxed{033}",
    ),
    "aime24 (HuggingFaceH4)": (
        {"id": 60, "problem": "?", "solution": "...", "answer": "204", "url": "https://x.org", "year": "2024"},
        "MATH", "204", "The answer is 204.",
    ),
    "aime24 (math-ai)": (
        {"id": 0, "problem": "?", "solution": r"\boxed{204}", "url": "https://x.org"}, "MATH", "204", "**204**",
    ),
    "amc23 (math-ai)": (
        {"id": 0, "question": "?", "answer": "27", "url": "https://x.org"}, "questions", "27", "Answer: 27",
    ),
    "amc (AI-MO)": ({"id": 4, "problem": "?", "answer": 142.0, "url": "https://x.org"}, "MATH", "142", "#### 142"),
    "cmath": (
        {"question": "3个加15个，一共几个？", "golden": "18", "reasoning_step": 1, "num_digits": 2, "grade": 1},
        "questions", "18", "一共18个。",
    ),
    "mmlu": (MMLU, "choices", "C", "The answer is C."),
    "mmlu, gold as text": ({**MMLU, "answer": "7"}, "choices", "C", "7"),
    "mmlu, gold as letter": ({**MMLU, "answer": "C"}, "choices", "C", "(c)"),
    "mmlu-pro": (
        {"question_id": 70, "question": "?", "options": [f"item {i}" for i in range(10)], "answer": "I",
         "answer_index": 8, "category": "business", "cot_content": ""},
        "choices", "I", "The answer is (I).",
    ),
    "arc": (
        {"id": "Mercury_1", "question": "?", "choices": {"text": ["ash", "oak", "elm"], "label": ["1", "2", "3"]},
         "answerKey": "2"},
        "choices", "B", "B",
    ),
    "openbookqa": (
        {"id": "7-980", "question_stem": "The sun causes", "answerKey": "D",
         "choices": {"text": ["puppies", "dunes", "waves", "growth"], "label": ["A", "B", "C", "D"]}},
        "choices", "D", "It is growth, so D.",
    ),
    "c-eval": (
        {"id": 0, "question": "?", "A": "一", "B": "二", "C": "三", "D": "四", "answer": "B", "explanation": ""},
        "choices", "B", "答案是B。",
    ),
    "hellaswag": (
        {"ind": 24, "activity_label": "Roof shingle removal", "ctx_a": "A man sits.", "ctx_b": "he",
         "ctx": "A man sits. he", "endings": ["wraps a pair.", "rips.", "holds.", "starts pulling."],
         "source_id": "activitynet~v_", "split": "val", "label": "3"},
        "HellaSwag", "D", "",
    ),
    "piqa": ({"goal": "Open a jar", "sol1": "twist", "sol2": "cook it", "label": 0}, "PIQA", "A", ""),
    "boolq": (
        {"question": "is ethanol a fuel", "passage": "Ethanol is burnt.", "answer": True}, "questions", "yes", "Yes.",
    ),
    "simpleqa": ({"problem": "Capital of Peru?", "answer": "Lima"}, "MATH", "lima", "It is Lima."),
    "humaneval": (
        {"task_id": "HumanEval/0", "prompt": "def add(a, b):\n    \"\"\"Sum.\"\"\"\n", "entry_point": "add",
         "canonical_solution": "    return a + b\n", "test": "def check(f):\n    assert f(1, 2) == 3\n"},
        "HumanEval", "passes", "```python\ndef add(a, b):\n    return a + b\n```",
    ),
    "mbpp": (
        {"task_id": 2, "text": "Write a function to add.", "code": "def add(a, b):\n  return a + b",
         "test_list": ["assert add(1, 2) == 3"], "test_setup_code": "", "challenge_test_list": []},
        "MBPP", "passes", "```python\ndef add(a, b):\n    return a + b\n```",
    ),
}  # fmt: skip


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records), encoding="utf-8")
    return path


def only(path: Path, **options: Any) -> Prompt:
    (prompt,) = load_suite(path, SuiteOptions(**options)).prompts
    return prompt


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_record_is_read_and_scored(tmp_path: Path, name: str) -> None:
    record, form, gold, reply = PUBLISHED[name]
    path = write(tmp_path / "s.jsonl", record)
    assert read_file(path).format == form
    prompt = only(path, allow_code=True)
    assert prompt.answer == gold
    if reply:
        assert read_reply(prompt, reply, truncated=False).correct is True
        assert read_reply(prompt, "I cannot say.", truncated=False).correct is False


def test_ids_and_tags_are_the_suites_own(tmp_path: Path) -> None:
    prompt = only(write(tmp_path / "m.jsonl", PUBLISHED["math-500"][0]))
    assert (prompt.id, prompt.tags) == ("test/precalculus/807.json", ("2", "Precalculus"))
    assert only(write(tmp_path / "a.jsonl", PUBLISHED["aime24 (Maxwell-Jia)"][0])).id == "2024-II-4"


def test_choices_are_listed_by_letter(tmp_path: Path) -> None:
    prompt = only(write(tmp_path / "m.jsonl", MMLU))
    assert prompt.messages[-1].content == (
        "Which is a prime?\n\nA. 4\nB. 6\nC. 7\nD. 9\n\nAnswer with the letter of the right choice."
    )
    assert answer_of(prompt, "7") == "C"
    assert answer_of(prompt, "Z") is None


def test_gpqa_hides_where_the_right_answer_is(tmp_path: Path) -> None:
    records = [
        {"Record ID": f"rec{i}", "Question": f"Which, {i}?", "Correct Answer": "right\n", "Incorrect Answer 1": "one",
         "Incorrect Answer 2": "two", "Incorrect Answer 3": "three", "Subdomain": "Physics"}
        for i in range(40)
    ]  # fmt: skip
    suite = load_suite(write(tmp_path / "g.jsonl", *records))
    assert {prompt.answer for prompt in suite.prompts} == set("ABCD")
    assert all(prompt.choices[ord(prompt.answer or "") - ord("A")] == "right" for prompt in suite.prompts)
    assert suite.sha256 == load_suite(tmp_path / "g.jsonl").sha256


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({**MMLU, "answer": 4}, "a letter from A to D, the text of one of the 4 choices"),
        ({**MMLU, "answer": "E"}, "`answer` is 'E'"),
        ({**MMLU, "choices": ["one"]}, "found 1 choices"),
        ({**MMLU, "choices": [1, None]}, r"`choices\[1\]` is null"),
        ({**PUBLISHED["humaneval"][0], "entry_point": "add) or (1"}, "name of a function"),
        ({**PUBLISHED["hellaswag"][0], "label": "9"}, "`label`"),
        ({"ctx": "x", "endings": [], "label": 0}, "`endings` is a list"),
    ],
)
def test_damage_in_published_records_is_named(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        load_suite(write(tmp_path / "s.jsonl", record), SuiteOptions(allow_code=True))


def test_programs_are_run_only_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "h.jsonl", PUBLISHED["humaneval"][0])
    with pytest.raises(SuiteError, match="has to be asked for") as raised:
        load_suite(path)
    assert "--allow-code" in (raised.value.hint or "")
    own = write(tmp_path / "o.jsonl", {"prompt": "Write f.", "tests": "f()"})
    with pytest.raises(SuiteError, match="has to be asked for"):
        load_suite(own)
    assert load_suite(own, SuiteOptions(allow_code=True)).prompts[0].extract == "code"


# ---- own format ---------------------------------------------------------------------------------------------------


def test_extra_keys_several_golds_tolerance_and_choices(tmp_path: Path) -> None:
    path = write(
        tmp_path / "o.jsonl",
        {"prompt": "Capital?", "answer": ["Paris", "City of Paris"], "difficulty": "easy"},
        {"prompt": "pi?", "answer": 3.14, "tolerance": 0.01},
        {"prompt": "Which?", "choices": ["red", "blue"], "answer": "blue"},
    )
    capital, pi, which = load_suite(path).prompts
    assert read_reply(capital, "The answer is the city of Paris.", truncated=False).correct is True
    assert read_reply(capital, "**Paris.**", truncated=False).answer == "paris"
    assert read_reply(pi, "3.1415", truncated=False).correct is True
    assert read_reply(pi, "3.2", truncated=False).correct is False
    assert (which.answer, which.extract) == ("B", "choice")
    assert "A. red\nB. blue" in which.messages[-1].content


def test_the_built_in_models_questions_are_accepted() -> None:
    suite = load_suite(Path(__file__).parents[3] / "examples/tiny_reasoner/questions.jsonl")
    assert len(suite.prompts) == 100
    assert suite.has_gold


def test_prompts_that_say_they_have_no_answer_are_left_out(tmp_path: Path) -> None:
    records = [
        {"id": "a", "prompt": "1+1?", "answer": 2},
        {"id": "b", "prompt": "Hi", "answer": None},
        {"id": "b2", "prompt": "Hello", "answer": None, "variant": "paraphrase", "variant_of": "b"},
    ]
    read = read_file(write(tmp_path / "s.jsonl", *records))
    assert ([p.id for p in read.suite.prompts], read.suite.variants, read.left_out) == (["a"], (), ("b",))
    assert read_file(write(tmp_path / "s.jsonl", *records[1:])).left_out == ()
    with pytest.raises(SuiteError, match="1 of 2 prompts have no gold"):
        load_suite(write(tmp_path / "s.jsonl", records[0], {"prompt": "Hi"}))


# ---- files --------------------------------------------------------------------------------------------------------


def test_csv_with_and_without_names(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([["question", "answer"], ["What, exactly?\nSay.", "1,200"], ["x?", "Paris"]])
    assert [(p.id, p.answer) for p in load_suite(path).prompts] == [("t-00001", "1200"), ("t-00002", "paris")]
    mmlu = tmp_path / "anatomy_test.csv"
    mmlu.write_text('"A lesion, where?",nose,ear,eye,toe,B\nNext?,a1,b1,c1,d1,D\n')
    assert [(p.answer, p.choices[1]) for p in load_suite(mmlu).prompts] == [("B", "ear"), ("D", "b1")]
    tsv = tmp_path / "t.tsv"
    tsv.write_text("problem\tanswer\nx?\t5\n")
    assert only(tsv).answer == "5"
    for text, message in (("a,a\n1,2\n", "`a` occurs more than once"), ("question,answer\n1,2,3\n", "3 cells")):
        path.write_text(text)
        with pytest.raises(SuiteError, match=message):
            load_suite(path)


def test_gz_of_every_text_format(tmp_path: Path) -> None:
    packed = tmp_path / "s.jsonl.gz"
    packed.write_bytes(gzip.compress(b'{"prompt": "x", "answer": 1}\n'))
    suite = load_suite(packed)
    assert (suite.name, suite.prompts[0].id) == ("s", "s-00001")
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"question,answer\nx,1\n"))
    assert only(tmp_path / "t.csv.gz").answer == "1"
    for data in (b"no gzip", gzip.compress(b'{"prompt": "x"}\n' * 99)[:-9]):
        packed.write_bytes(data)
        with pytest.raises(SuiteError, match="not a whole gzip file"):
            load_suite(packed)


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgedistill.verify.suites import records

    monkeypatch.setattr(records, "MAX_BYTES", 1 << 20)
    (tmp_path / "s.jsonl.gz").write_bytes(gzip.compress(b" " * (8 << 20)))
    with pytest.raises(SuiteError, match="more than 1 MiB"):
        load_suite(tmp_path / "s.jsonl.gz")


def test_a_directory_of_splits_asks_which(tmp_path: Path) -> None:
    root = tmp_path / "gsm8k"
    root.mkdir()
    write(root / "train.jsonl", *[{"question": f"{i}?", "answer": "#### 1"} for i in range(3)])
    write(root / "test.jsonl", {"question": "x?", "answer": "#### 2"})
    with pytest.raises(SuiteError, match="splits test, train") as raised:
        load_suite(root)
    assert "--split test" in (raised.value.hint or "")
    assert only(root, split="test").answer == "2"
    assert len(load_suite(root, SuiteOptions(split="train")).prompts) == 3
    with pytest.raises(SuiteError, match="no split `validation`"):
        load_suite(root, SuiteOptions(split="validation"))


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "test-00000-of-00001.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([MMLU, {**MMLU, "question": "Next?", "answer": 0}]), path)
    assert [p.answer for p in load_suite(path).prompts] == ["C", "A"]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(SuiteError, match="not a Parquet file"):
        load_suite(path)


def test_a_data_set_of_the_hub_is_opened_by_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On local data: the library opens a folder as it opens a repository."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    pytest.importorskip("datasets")
    root = tmp_path / "gsm8k"
    root.mkdir()
    write(root / "train.jsonl", {"question": "a?", "answer": "#### 1"})
    write(root / "test.jsonl", {"question": "b?", "answer": "#### 2"}, {"question": "c?", "answer": "#### 3"})
    assert [p.answer for p in load_suite(f"hub:{root}").prompts] == ["2", "3"]
    assert [p.answer for p in load_suite(f"hub:{root}", SuiteOptions(split="train")).prompts] == ["1"]
    with pytest.raises(SuiteError, match="cannot be opened"):
        load_suite(f"hub:{tmp_path / 'none'}")


# ---- columns, templates, examples ---------------------------------------------------------------------------------


def test_columns_that_the_user_names(tmp_path: Path) -> None:
    record = {"q": {"text": "Which?"}, "opts": ["red", "blue"], "key": "blue", "n": 7, "lang": "en", "band": "easy"}
    path = write(tmp_path / "s.jsonl", record)
    columns = parse_map(["prompt=q.text, choices=opts,gold=key", "id=n,tags=lang,tags=band"])
    prompt = only(path, columns=columns)
    assert (prompt.id, prompt.answer, prompt.tags) == ("7", "B", ("en", "easy"))
    assert prompt.messages[0].content.startswith("Which?\n\nA. red\nB. blue")
    with pytest.raises(SuiteError, match=r"`q\.txt` that --map names is missing; found 'q'"):
        only(path, columns=parse_map(["prompt=q.txt"]))
    for place in ("\u00b2", "9" * 5000, "2"):
        with pytest.raises(SuiteError, match=rf"`opts\.{place}` that --map names is missing"):
            only(path, columns=parse_map([f"prompt=opts.{place}"]))


def test_mapped_golds(tmp_path: Path) -> None:
    path = write(tmp_path / "s.jsonl", {"ask": "x", "right": [r"so \boxed{7}", "8"], "off": 0.5})
    prompt = only(path, columns=parse_map(["prompt=ask,gold=right,tolerance=off"]))
    assert (prompt.golds, prompt.tolerance) == (("7", "8"), 0.5)


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["prompt"], "MEANING=COLUMN"), (["promt=x"], "did you mean `prompt`"), (["prompt=x,prompt=y"], "twice")],
)
def test_a_wrong_map_is_refused(texts: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_map(texts)


def test_a_template_names_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", MMLU)
    prompt = only(path, template="[{subject}] {prompt}\n{choices}\nLetter:")
    assert prompt.messages[0].content == "[mathematics] Which is a prime?\nA. 4\nB. 6\nC. 7\nD. 9\nLetter:"
    with pytest.raises(SuiteError, match=r"the template names \{topic\}"):
        only(path, template="{topic} {prompt}")


def test_examples_before_the_question(tmp_path: Path) -> None:
    rows = [{"question": f"{i}?", "answer": f"Think.\n#### {i}"} for i in range(4)]
    path = write(tmp_path / "g.jsonl", *rows)
    suite = load_suite(path, SuiteOptions(few_shot=2))
    assert [p.id for p in suite.prompts] == ["g-00003", "g-00004"]
    turns = [(message.role, message.content) for message in suite.prompts[0].messages]
    assert turns == [
        ("user", "0?"),
        ("assistant", "Think.\n#### 0"),
        ("user", "1?"),
        ("assistant", "Think.\n#### 1"),
        ("user", "2?"),
    ]
    train = write(tmp_path / "train.jsonl", {"question": "t?", "answer": "#### 9"})
    suite = load_suite(path, SuiteOptions(few_shot=1, few_shot_from=train))
    assert len(suite.prompts) == 4
    assert suite.prompts[0].messages[0].content == "t?"
    with pytest.raises(SuiteError, match="5 examples were asked for"):
        load_suite(path, SuiteOptions(few_shot=5))
    with pytest.raises(UsageError, match="--few-shot-from needs"):
        SuiteOptions(few_shot_from=train)


def test_options_of_files_are_refused_for_built_in_suites() -> None:
    with pytest.raises(SuiteError, match="is built in"):
        load_suite("arithmetic", SuiteOptions(few_shot=2))
