"""Suites from files: the toolkit's own format, and those of GSM8K and MATH.

One JSON object a line, or the other forms that ``suite_records`` reads. Own format: ``id`` and ``prompt`` (text) or
``messages``; optional ``answer``, ``extract``, ``tags``, ``checks``, ``variant`` with ``variant_of``. GSM8K:
``question`` and ``answer`` with ``#### x`` at its end. MATH: ``problem`` and ``solution`` with ``\\boxed{x}`` (optional
``level``, ``type``, or ``answer``). The format is that of the first object's keys; mixing is an error. A first object
{"suite": name, "sampling": {...}} may precede the own format.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args

from edgedistill.answers.extract import extract
from edgedistill.answers.typed import canonical
from edgedistill.errors import SuiteError
from edgedistill.verify.suites.records import kind, records
from edgedistill.verify.types import Check, Extraction, Message, Prompt, Role, Suite, SuiteSampling, Variant

if TYPE_CHECKING:
    from pathlib import Path

_KEYS = ("id", "prompt", "messages", "answer", "extract", "tags", "checks", "variant", "variant_of")
_UNBRACED = re.compile(r"\\boxed\s+([^$]+)")
_NUMERIC_RANGES = {
    "temperature": (0.0, 10.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1 << 31),
    "min_p": (0.0, 1.0),
    "max_new_tokens": (1, 1 << 20),
}


def read_suite(path: Path) -> Suite:
    """Read a suite; its name is the file's stem, or the directory's name, unless a header says otherwise.

    Raises:
        SuiteError: unreadable, not UTF-8, or a malformed record (named by its file and line or entry).
    """
    whole = path.resolve().name if path.is_dir() else path.name
    prompts: list[Prompt] = []
    name, sampling, form = whole if path.is_dir() else path.stem, SuiteSampling(), ""
    for record in records(path):
        if "suite" in record.fields and not prompts:
            name, sampling = _header(record.fields, record.where)
            continue
        found = _form(record.fields, record.where)
        if form and found != form:
            raise SuiteError(f"{record.where}: the format is {found}, that of what came before {form}; expected one.")
        form = found
        reader = {"edgedistill": _own, "GSM8K": _gsm8k, "MATH": _math}[form]
        prompts.append(reader(record.fields, record.where, record.default_id))
    if not prompts:
        raise SuiteError(f"{whole} has no prompts; expected one JSON object a line, or an array of them.")
    _refuse_duplicates(prompts, whole)
    plain = tuple(prompt for prompt in prompts if prompt.variant is None)
    return Suite(name, plain, tuple(prompt for prompt in prompts if prompt.variant is not None), sampling)


def _form(record: dict[str, Any], where: str) -> str:
    if "prompt" in record or "messages" in record:
        return "edgedistill"
    if "question" in record:
        return "GSM8K"
    if "problem" in record:
        return "MATH"
    raise SuiteError(
        f"{where}: found the keys {', '.join(map(repr, record)) or 'none'}; expected `prompt` or `messages`, "
        "GSM8K's `question`, or MATH's `problem`."
    )


def _header(record: dict[str, Any], where: str) -> tuple[str, SuiteSampling]:
    for key in record:
        if key not in ("suite", "sampling"):
            raise SuiteError(f"{where}: key `{key}` is unknown in the suite's header; expected `suite`, `sampling`.")
    sampling = record.get("sampling", {})
    if not isinstance(sampling, dict):
        raise SuiteError(f"{where}: `sampling` is {kind(sampling)}; expected an object.")
    known = [field.name for field in fields(SuiteSampling)]
    for key, value in sampling.items():
        if key not in known:
            raise SuiteError(f"{where}: `sampling.{key}` is unknown{_near(key, known)}")
        low, high = _NUMERIC_RANGES[key]
        whole = isinstance(low, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not low <= value <= high:
            form = "a whole number" if whole else "a number"
            raise SuiteError(f"{where}: `sampling.{key}` is {value!r}; expected {form} from {low} to {high}.")
    return _text(record, "suite", where), SuiteSampling(**sampling)


def _own(record: dict[str, Any], where: str, default_id: str) -> Prompt:
    for key in record:
        if key not in _KEYS:
            raise SuiteError(f"{where}: key `{key}` is unknown{_near(key, _KEYS)}")
    if ("prompt" in record) == ("messages" in record):
        raise SuiteError(f"{where}: found both `prompt` and `messages`; expected one of them.")
    messages = (
        (Message("user", _text(record, "prompt", where, empty=True)),)
        if "prompt" in record
        else _messages(record["messages"], where)
    )
    rule = record.get("extract", "checks" if record.get("checks") else "auto")
    if rule not in get_args(Extraction):
        raise SuiteError(f"{where}: `extract` is {rule!r}; expected one of {', '.join(get_args(Extraction))}.")
    variant = record.get("variant")
    if variant is not None and variant not in get_args(Variant):
        raise SuiteError(f"{where}: `variant` is {variant!r}; expected one of {', '.join(get_args(Variant))}.")
    tags = record.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        raise SuiteError(f"{where}: `tags` is {tags!r}; expected a list of texts.")
    return Prompt(
        id=_id(record, where) if "id" in record else default_id,
        messages=messages,
        answer=_gold(record.get("answer"), rule, where),
        extract=rule,
        tags=tuple(tags),
        checks=_checks(record.get("checks", []), where),
        variant_of=None if record.get("variant_of") is None else _text(record, "variant_of", where),
        variant=variant,
    )


def _gsm8k(record: dict[str, Any], where: str, default_id: str) -> Prompt:
    question, solution = _text(record, "question", where), _text(record, "answer", where)
    if "####" not in solution:
        raise SuiteError(f"{where}: `answer` has no `#### x`; expected GSM8K's final line.")
    answer = extract(solution, "hash")
    if answer is None:
        raise SuiteError(f"{where}: nothing follows `####` in `answer`.")
    return Prompt(_id(record, where) if "id" in record else default_id, (Message("user", question),), answer)


def _math(record: dict[str, Any], where: str, default_id: str) -> Prompt:
    problem = _text(record, "problem", where)
    if "answer" in record:
        answer = _gold(record["answer"], "auto", where)
    else:
        solution = _text(record, "solution", where)
        answer = extract(solution, "boxed") or _unbraced(solution)
    if answer is None:
        raise SuiteError(f"{where}: `solution` has no \\boxed{{...}} and there is no `answer`; expected one of them.")
    tags = tuple(str(record[key]) for key in ("level", "type", "subject") if key in record)
    prompt_id = _id(record, where) if "id" in record else str(record.get("unique_id", default_id))
    return Prompt(prompt_id, (Message("user", problem),), answer, tags=tags)


def _unbraced(solution: str) -> str | None:
    """The answer of the few solutions of MATH that end in ``$\\boxed 2$``."""
    found = _UNBRACED.findall(solution)
    return canonical(found[-1]) if found else None


def _id(record: dict[str, Any], where: str) -> str:
    value = record["id"]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(record, "id", where)


def _text(record: dict[str, Any], key: str, where: str, *, empty: bool = False) -> str:
    if key not in record:
        raise SuiteError(f"{where}: `{key}` is missing.")
    value = record[key]
    if not isinstance(value, str) or (not empty and not value.strip()):
        raise SuiteError(f"{where}: `{key}` is {kind(value)}; expected a text{'' if empty else ' that is not empty'}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SuiteError(f"{where}: `{key}` holds half a surrogate pair; expected whole characters.") from error
    return value


def _gold(value: Any, rule: Extraction, where: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SuiteError(f"{where}: `answer` is {kind(value)}; expected a text or a number.")
    gold = extract(str(value), rule) if rule in ("text", "choice") else canonical(str(value))
    if gold is None:
        raise SuiteError(
            f"{where}: `answer` is {str(value)[:40]!r}; expected a final answer that is not empty or an essay."
        )
    return gold


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise SuiteError(f"{where}: `messages` is {kind(value)}; expected a list of at least one message.")
    messages = []
    for index, entry in enumerate(value):
        at = f"{where}: `messages[{index}]`"
        if not isinstance(entry, dict) or set(entry) != {"role", "content"}:
            raise SuiteError(f"{at}: expected an object with `role` and `content`.")
        if entry["role"] not in get_args(Role):
            raise SuiteError(f"{at}: `role` is {entry['role']!r}; expected one of {', '.join(get_args(Role))}.")
        messages.append(Message(entry["role"], _text(entry, "content", at, empty=True)))
    if messages[-1].role != "user":
        raise SuiteError(f"{where}: the last message is of the {messages[-1].role}; expected the user's.")
    return tuple(messages)


def _checks(value: Any, where: str) -> tuple[Check, ...]:
    if not isinstance(value, list):
        raise SuiteError(f"{where}: `checks` is {kind(value)}; expected a list.")
    checks = []
    for index, entry in enumerate(value):
        if not isinstance(entry, dict) or not isinstance(entry.get("kind"), str):
            raise SuiteError(f"{where}: `checks[{index}]` has no `kind`; expected an object with one.")
        parameters = {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items() if key != "kind"}
        checks.append(Check(entry["kind"], tuple(sorted(parameters.items()))))
    return tuple(checks)


def _refuse_duplicates(prompts: list[Prompt], name: str) -> None:
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise SuiteError(f"{name}: the id `{prompt.id}` occurs more than once; expected unique ids.")
        seen.add(prompt.id)


def _near(key: str, known: tuple[str, ...] | list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; expected one of {', '.join(known)}."
