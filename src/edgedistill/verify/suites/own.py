"""Reads the toolkit's own suite format: one JSON object per prompt, as ``suite.schema.json`` beside this file
describes.

Unknown keys can be used in templates and have no other effect. An unknown key is refused if it looks like a misspelling
of a key that the record lacks, or is another format's name for it.
"""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args

from edgedistill.errors import SuiteError
from edgedistill.verify.suites.draft import CHOICES, Draft, chosen, golds_of, tolerance_of
from edgedistill.verify.suites.values import id_of, kind, near, text_of, texts_of
from edgedistill.verify.types import Check, Extraction, Message, Role, SuiteSampling, Variant

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS = ("id", "prompt", "messages", "answer", "choices", "tolerance", "extract", "tags", "checks", "tests", "solution",
        "variant", "variant_of")  # fmt: skip
_MISSPELT = 0.8
_ELSEWHERE = dict.fromkeys(("gold", "golden", "target", "label", "expected", "final_answer"), "answer")
"""Names of other formats for the key ``answer``; ignoring them would leave a suite without right answers."""
MAX_CHECKS = 64
MAX_MESSAGES = 256
MAX_TAGS = 64
NUMERIC_RANGES = {
    "temperature": (0.0, 10.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1 << 31),
    "min_p": (0.0, 1.0),
    "max_new_tokens": (1, 1 << 20),
}


def header(record: Mapping[str, Any], where: str) -> tuple[str, SuiteSampling]:
    """Name and sampling settings of a first object ``{"suite": ..., "sampling": {...}}``."""
    for key in record:
        if key not in ("suite", "sampling"):
            raise SuiteError(f"{where}: key `{key}` is unknown in the suite's header; expected `suite`, `sampling`.")
    sampling = record.get("sampling", {})
    if not isinstance(sampling, dict):
        raise SuiteError(f"{where}: `sampling` is {kind(sampling)}; expected an object.")
    known = [field.name for field in fields(SuiteSampling)]
    for key, value in sampling.items():
        if key not in known:
            raise SuiteError(f"{where}: `sampling.{key}` is unknown{near(key, known)}")
        low, high = NUMERIC_RANGES[key]
        whole = isinstance(low, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not low <= value <= high:
            form = "a whole number" if whole else "a number"
            raise SuiteError(f"{where}: `sampling.{key}` is {value!r}; expected {form} from {low} to {high}.")
    return text_of(record, "suite", where), SuiteSampling(**sampling)


def read_own(record: Mapping[str, Any], where: str, default_id: str) -> Draft:
    """Read a record of this format. Raises SuiteError that names the key."""
    for key in record:
        meant = None if key in KEYS else _meant(key)
        if meant is not None and meant not in record:
            raise SuiteError(
                f"{where}: key `{key}` is unknown; did you mean `{meant}`? Expected {', '.join(KEYS)}.",
                hint="Rename it, or say which keys count: --map prompt=prompt,gold=KEY",
            )
    if ("prompt" in record) == ("messages" in record):
        raise SuiteError(f"{where}: found both `prompt` and `messages`; expected one of them.")
    messages = (
        (Message("user", text_of(record, "prompt", where, empty=True)),)
        if "prompt" in record
        else _messages(record["messages"], where)
    )
    choices = texts_of(record["choices"], "choices", where) if record.get("choices") is not None else ()
    default = "checks" if record.get("checks") else "choice" if choices else "code" if record.get("tests") else "auto"
    rule = _one_of(record.get("extract", default), "extract", get_args(Extraction), where)
    variant = record.get("variant")
    if variant is not None:
        _one_of(variant, "variant", get_args(Variant), where)
    tags = record.get("tags", [])
    if not isinstance(tags, list) or len(tags) > MAX_TAGS or not all(isinstance(tag, str) for tag in tags):
        raise SuiteError(f"{where}: `tags` is {str(tags)[:60]!r}; expected a list of at most {MAX_TAGS} texts.")
    if choices and rule not in ("choice", "likelihood"):
        raise SuiteError(f"{where}: `extract` is {rule!r} beside `choices`; expected 'choice' or 'likelihood'.")
    if rule == "likelihood" and not choices:
        raise SuiteError(f"{where}: `extract` is 'likelihood', which needs `choices`.")
    answer, tests = record.get("answer"), str(record.get("tests") or "")
    if bool(tests) != (rule == "code"):
        raise SuiteError(f"{where}: `tests` belong to `extract: code`, and the reverse; expected both or none.")
    golds = golds_of(answer, "answer", where)
    if choices and golds:
        golds = tuple(chosen(gold, choices, "answer", where, index=False) for gold in golds)
    return Draft(
        where=where,
        id=id_of(record["id"], where) if "id" in record else default_id,
        messages=messages,
        golds=("passes",) if tests else golds,
        choices=choices,
        extract=rule,
        solution=text_of(record, "solution", where) if record.get("solution") is not None else "",
        wording=CHOICES if rule == "choice" and choices and "prompt" in record else None,
        tags=tuple(tags),
        checks=_checks(record.get("checks", []), where),
        tests=tests,
        tolerance=tolerance_of(record.get("tolerance"), where),
        variant=variant,
        variant_of=None if record.get("variant_of") is None else text_of(record, "variant_of", where),
        columns={key: value for key, value in record.items() if key not in ("prompt", "messages", "choices")},
        unanswered="answer" in record and answer is None and not record.get("checks") and not tests,
    )


def _meant(key: str) -> str | None:
    """The key of this format that the unknown ``key`` probably means; None if there is none."""
    near_by = difflib.get_close_matches(key.lower(), KEYS, n=1, cutoff=_MISSPELT)
    return _ELSEWHERE.get(key.lower()) or (near_by[0] if near_by else None)


def _one_of(value: Any, key: str, known: tuple[Any, ...], where: str) -> Any:
    if value not in known:
        raise SuiteError(f"{where}: `{key}` is {str(value)[:40]!r}; expected one of {', '.join(known)}.")
    return value


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_MESSAGES:
        raise SuiteError(f"{where}: `messages` is {kind(value)}; expected a list of at least one message.")
    messages = []
    for index, entry in enumerate(value):
        at = f"{where}: `messages[{index}]`"
        if not isinstance(entry, dict) or set(entry) != {"role", "content"}:
            raise SuiteError(f"{at}: expected an object with `role` and `content`.")
        role = _one_of(entry["role"], "role", get_args(Role), at)
        messages.append(Message(role, text_of(entry, "content", at, empty=True)))
    if messages[-1].role != "user":
        raise SuiteError(f"{where}: the last message is of the {messages[-1].role}; expected the user's.")
    return tuple(messages)


def _checks(value: Any, where: str) -> tuple[Check, ...]:
    if not isinstance(value, list) or len(value) > MAX_CHECKS:
        raise SuiteError(f"{where}: `checks` is {kind(value)}; expected a list of at most {MAX_CHECKS}.")
    checks = []
    for index, entry in enumerate(value):
        if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
            raise SuiteError(f"{where}: `checks[{index}]` has no `kind`; expected an object with one.")
        parameters = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items() if key != "kind"}
        checks.append(Check(entry["kind"], tuple(sorted(parameters.items()))))
    return tuple(checks)
