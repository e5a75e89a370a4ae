"""Reads suites in published formats, such as GSM8K, MATH, MMLU, GPQA, IFEval and HumanEval.

A format is recognised by the keys of its records, in any case. Its reader turns a record into a ``Draft``. To add a
format, add a reader and a line to ``FORMATS``, before formats whose keys its records also have.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from edgedistill.answers.boxes import boxed_contents
from edgedistill.errors import SuiteError
from edgedistill.verify.suites.draft import CHOICES, Draft, chosen, golds_of, tolerance_of
from edgedistill.verify.suites.ifeval import checks_of
from edgedistill.verify.suites.values import id_of, scalar_text, text_of, texts_of
from edgedistill.verify.types import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Row = dict[str, Any]
"""A record with its keys in lower case, nulls left out."""

_UNBRACED = re.compile(r"\\boxed\s+([^$]+)")
_IDS = ("id", "unique_id", "question_id", "record id", "task_id", "key", "ind", "idx")
_TAGS = ("level", "type", "subject", "category", "subdomain", "high-level domain", "activity_label", "grade")
_GOLDS = ("answer", "final_answer", "golden", "target", "gold")
_KEYS_OF_CHOICE = ("answer", "answerkey", "label", "gold", "target", "answer_index")
_CODE = "Complete this Python function. Reply with the whole function in one code block.\n\n```python\n{prompt}\n```"
_PROGRAM = (
    "Write a Python function. Reply with it in one code block.\n\n{prompt}\n\nIt has to pass these tests:\n\n{tests}"
)


@dataclass(frozen=True, slots=True)
class Format:
    """A published format: its ``name``, the ``keys`` of its records (alternatives separated by |), and its reader."""

    name: str
    keys: tuple[str, ...]
    read: Callable[[Row, str, str], Draft]

    def fits(self, row: Row) -> bool:
        """Whether a record has its keys."""
        return all(any(name in row for name in key.split("|")) for key in self.keys)


def published(record: Mapping[str, Any], where: str) -> tuple[Format, Row]:
    """The format of a record, and the record in the form that its reader expects. Raises SuiteError if none fits."""
    row = {str(key).strip().lower(): value for key, value in record.items() if value is not None}
    for one in FORMATS:
        if one.fits(row) and (one.name != "GSM8K" or "####" in str(row["answer"])):
            return one, row
    raise SuiteError(
        f"{where}: found the keys {', '.join(map(repr, list(record)[:20])) or 'none'}; expected `prompt` or `messages`,"
        " or the keys of a published suite, such as `question` and `answer` or `problem` and `solution`.",
        hint="Say which keys they are: --map prompt=KEY,gold=KEY",
    )


def read_mapped(
    record: Mapping[str, Any], where: str, default_id: str, columns: Mapping[str, tuple[str, ...]]
) -> Draft:
    """Read a record by the columns that the user named (``options.SuiteOptions.columns``). Raises SuiteError."""

    def at(path: str) -> Any:
        value: Any = record
        if path in record:
            return record[path]
        for step in path.split("."):
            if isinstance(value, list) and step.isdecimal() and len(step) < 10 and int(step) < len(value):
                value = value[int(step)]
            elif isinstance(value, dict) and step in value:
                value = value[step]
            else:
                raise SuiteError(
                    f"{where}: the key `{path}` that --map names is missing; found {', '.join(map(repr, record))}."
                )
        return value

    def one(meaning: str) -> Any:
        return at(columns[meaning][0]) if meaning in columns else None

    choices: tuple[str, ...] = ()
    if (names := columns.get("choices")) is not None:
        values = at(names[0]) if len(names) == 1 else [at(name) for name in names]
        choices = texts_of(values, names[0], where)
    raw: list[Any] = []
    for name in columns.get("gold", ()):
        found = at(name)
        raw += found if isinstance(found, list) else [found]
    if choices:
        golds = tuple(chosen(gold, choices, "gold", where) for gold in raw)
    else:
        golds = golds_of(raw, "gold", where) if raw and raw[0] is not None else ()
    tests = one("tests")
    tests = "\n".join(map(str, tests)) if isinstance(tests, list) else str(tests or "")
    return Draft(
        where,
        id_of(one("id"), where) if "id" in columns else default_id,
        (Message("user", scalar_text(one("prompt"), columns["prompt"][0], where)),),
        golds=("passes",) if tests else tuple(_final(gold) for gold in golds),
        choices=choices,
        extract="code" if tests else "choice" if choices else "auto",
        solution=str(one("solution") or (raw[0] if raw and not choices else "")),
        wording=CHOICES if choices else None,
        tags=tuple(scalar_text(at(name), name, where) for name in columns.get("tags", ())),
        tests=tests,
        tolerance=tolerance_of(one("tolerance"), where),
        columns=record,
    )


def _final(solution: str) -> str:
    """The marked final answer of a solution (after ``####`` or in a box); the solution itself if there is no mark."""
    if "####" in solution:
        return solution.rpartition("####")[2].strip() or solution
    boxed = boxed_contents(solution)
    return boxed[-1] if boxed else solution


def _draft(row: Row, where: str, default_id: str, question: str, golds: tuple[str, ...], **more: Any) -> Draft:
    given = next((row[name] for name in _IDS if name in row and row[name] != ""), None)
    tags = tuple(scalar_text(row[name], name, where) for name in _TAGS if isinstance(row.get(name), str | int | float))
    return Draft(
        where,
        default_id if given is None else id_of(given, where),
        (Message("user", question),),
        golds,
        tags=tags,
        columns={key: value for key, value in row.items() if key not in ("prompt", "choices")},
        **more,
    )


def _gsm8k(row: Row, where: str, default_id: str) -> Draft:
    solution = text_of(row, "answer", where)
    gold = solution.rpartition("####")[2].strip()
    if not gold:
        raise SuiteError(f"{where}: nothing follows `####` in `answer`.")
    return _draft(row, where, default_id, text_of(row, "question", where), (gold,), solution=solution)


def _math(row: Row, where: str, default_id: str) -> Draft:
    problem, solution = text_of(row, "problem", where), str(row.get("solution", ""))
    if "answer" in row:
        golds = golds_of(row["answer"], "answer", where)
    else:
        text_of(row, "solution", where)
        boxed = boxed_contents(solution)[-1:] or [found.strip() for found in _UNBRACED.findall(solution)[-1:]]
        if not boxed:
            raise SuiteError(
                f"{where}: `solution` has no \\boxed{{...}} and there is no `answer`; expected one of them."
            )
        golds = (boxed[0],)
    return _draft(row, where, default_id, problem, golds, solution=solution)


def _question(row: Row, where: str, default_id: str) -> Draft:
    key = next(name for name in _GOLDS if name in row)
    value = ("yes" if row[key] else "no") if isinstance(row[key], bool) else row[key]
    question = scalar_text(row["question"], "question", where)
    if isinstance(row.get("passage"), str):
        question = f"{row['passage']}\n\n{question}"
    golds = tuple(_final(gold) for gold in golds_of(value, key, where))
    return _draft(row, where, default_id, question, golds, solution=str(row.get("solution", "")))


def _choice(row: Row, where: str, default_id: str) -> Draft:
    question = row.get("question", row.get("question_stem"))
    listed = row.get("choices", row.get("options"))
    if isinstance(question, dict):
        listed = question.get("choices", listed)
        question = question.get("stem")
    labels: tuple[str, ...] = ()
    if isinstance(listed, dict) and "text" in listed:
        labels, listed = texts_of(listed.get("label"), "label", where), listed["text"]
    elif isinstance(listed, dict):
        labels, listed = tuple(map(str, listed)), list(listed.values())
    elif isinstance(listed, list) and listed and all(isinstance(one, dict) for one in listed):
        labels = tuple(str(one.get("label")) for one in listed)
        listed = [one.get("text") for one in listed]
    choices = texts_of(listed, "choices", where)
    key = next((name for name in _KEYS_OF_CHOICE if name in row), "answer")
    gold = row.get(key)
    if isinstance(gold, str) and gold in labels:
        gold = labels.index(gold)
    return _with_choices(row, where, default_id, scalar_text(question, "question", where), choices, (gold, key))


def _lettered(row: Row, where: str, default_id: str) -> Draft:
    choices = tuple(scalar_text(row[name], name, where) for name in "abcdefghij" if name in row)
    return _with_choices(row, where, default_id, text_of(row, "question", where), choices, (row["answer"], "answer"))


def _with_choices(
    row: Row, where: str, default_id: str, question: str, choices: tuple[str, ...], gold: tuple[Any, str]
) -> Draft:
    choices = tuple(re.sub(r"^\(?[A-Z][).]\s*", "", choice) or choice for choice in choices)
    letter = chosen(gold[0], choices, gold[1], where)
    if isinstance(row.get("passage"), str) and row["passage"].strip():
        question = f"{row['passage']}\n\n{question}"
    return _draft(row, where, default_id, question, (letter,), choices=choices, extract="choice", wording=CHOICES)


def _gpqa(row: Row, where: str, default_id: str) -> Draft:
    right = text_of(row, "correct answer", where).strip()
    wrong = [text_of(row, name, where).strip() for name in sorted(row) if re.fullmatch(r"incorrect answer \d", name)]
    question = text_of(row, "question", where)
    choices = [right, *wrong]
    Random(f"edgedistill gpqa {question}").shuffle(choices)  # the right one comes first in the file
    letter = chr(ord("A") + choices.index(right))
    return _draft(
        row, where, default_id, question, (letter,), choices=tuple(choices), extract="choice", wording=CHOICES
    )


def _endings(row: Row, where: str, default_id: str) -> Draft:
    context = str(row["ctx"]) if "ctx" in row else f"{row['ctx_a']} {row.get('ctx_b', '')}".strip()
    endings = texts_of(row["endings"], "endings", where)
    label = row.get("label")
    return _likely(row, where, default_id, context, endings, label)


def _piqa(row: Row, where: str, default_id: str) -> Draft:
    choices = (text_of(row, "sol1", where), text_of(row, "sol2", where))
    return _likely(row, where, default_id, text_of(row, "goal", where), choices, row.get("label"))


def _likely(row: Row, where: str, default_id: str, context: str, choices: tuple[str, ...], gold: Any) -> Draft:
    letter = chosen(gold, choices, "label", where)
    solution = choices[ord(letter) - ord("A")]
    row = {key: value for key, value in row.items() if key != "ind"}  # the article's, not the question's
    return _draft(row, where, default_id, context, (letter,), choices=choices, extract="likelihood", solution=solution)


def _ifeval(row: Row, where: str, default_id: str) -> Draft:
    prompt = text_of(row, "prompt", where)
    return _draft(row, where, default_id, prompt, (), extract="checks", checks=checks_of(row, where))


def _human_eval(row: Row, where: str, default_id: str) -> Draft:
    entry = text_of(row, "entry_point", where)
    if not entry.isidentifier():
        raise SuiteError(f"{where}: `entry_point` is {entry[:40]!r}; expected the name of a function.")
    prompt, tests = text_of(row, "prompt", where), f"{text_of(row, 'test', where)}\ncheck({entry})"
    solution = f"```python\n{prompt}{row.get('canonical_solution', '')}\n```"
    return _draft(
        row, where, default_id, prompt, ("passes",), extract="code", tests=tests, solution=solution, wording=_CODE
    )


def _mbpp(row: Row, where: str, default_id: str) -> Draft:
    listed = texts_of(row["test_list"], "test_list", where)
    imports = row.get("test_imports")
    setup = [str(row.get("test_setup_code") or ""), *map(str, imports if isinstance(imports, list) else ())]
    tests = "\n".join(line for line in (*setup, *listed) if line)
    question = text_of(row, "text" if "text" in row else "prompt", where)
    solution = f"```python\n{row.get('code', '')}\n```"
    return _draft(
        row, where, default_id, _PROGRAM.replace("{prompt}", question).replace("{tests}", "\n".join(listed)),
        ("passes",), extract="code", tests=tests, solution=solution,
    )  # fmt: skip


FORMATS: tuple[Format, ...] = (
    Format("IFEval", ("prompt", "instruction_id_list", "kwargs"), _ifeval),
    Format("HumanEval", ("prompt", "test", "entry_point"), _human_eval),
    Format("MBPP", ("text|prompt", "test_list"), _mbpp),
    Format("GPQA", ("question", "correct answer", "incorrect answer 1"), _gpqa),
    Format("HellaSwag", ("ctx|ctx_a", "endings", "label"), _endings),
    Format("PIQA", ("goal", "sol1", "sol2", "label"), _piqa),
    Format("choices", ("question|question_stem", "choices|options", "|".join(_KEYS_OF_CHOICE)), _choice),
    Format("choices", ("question", "a", "b", "answer"), _lettered),
    Format("choices", ("question", "answerkey"), _choice),
    Format("GSM8K", ("question", "answer"), _gsm8k),
    Format("MATH", ("problem",), _math),
    Format("questions", ("question", "|".join(_GOLDS)), _question),
)  # fmt: skip
"""In the order in which they are tried. ``MATH``: MATH-500 and AIME too. ``choices``: MMLU, ARC and others; letters,
numbers or texts as golds. ``questions``: AMC, CMATH, BoolQ and others."""
