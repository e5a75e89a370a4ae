"""Suites from files: the toolkit's JSONL, and the formats of GSM8K and MATH.

One JSON object a line. Own format: ``id`` and ``prompt`` (text) or ``messages``; optional ``answer``, ``extract``,
``tags``, ``checks``, ``variant`` with ``variant_of``. GSM8K: ``question`` and ``answer`` with ``#### x`` at its end.
MATH: ``problem`` and ``solution`` with ``\\boxed{x}`` (optional ``level``, ``type``, or ``answer``). The format is that
of the first line's keys; mixing is an error. A first line {"suite": name, "sampling": {...}} may precede the own
format.

Must not know: models, samples, what a check means.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any, get_args

from edgedistill.answers.canonical import canonical
from edgedistill.answers.extract import extract
from edgedistill.errors import SuiteError
from edgedistill.verify.types import Check, Extraction, Message, Prompt, Role, Suite, SuiteSampling, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_FILE_BYTES = 256 * 1024 * 1024

_KEYS = ("id", "prompt", "messages", "answer", "extract", "tags", "checks", "variant", "variant_of")
_NUMERIC_RANGES = {
    "temperature": (0.0, 10.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 1 << 31),
    "min_p": (0.0, 1.0),
    "max_new_tokens": (1, 1 << 20),
}


def read_suite(path: Path) -> Suite:
    """Read a suite; its name is the file's stem unless the file says otherwise.

    Raises:
        SuiteError: unreadable, not UTF-8, or a malformed line (named by its number).
    """
    prompts: list[Prompt] = []
    name, sampling, form = path.stem, SuiteSampling(), ""
    for number, record in _records(path):
        where = f"{path.name}, line {number}"
        if "suite" in record and not prompts:
            name, sampling = _header(record, where)
            continue
        found = _form(record, where)
        if form and found != form:
            raise SuiteError(f"{where}: the line is in the format {found}, the lines before in {form}; expected one.")
        form = found
        reader = {"edgedistill": _own, "GSM8K": _gsm8k, "MATH": _math}[form]
        prompts.append(reader(record, where, f"{path.stem}-{number:05}"))
    if not prompts:
        raise SuiteError(f"{path.name} has no prompts; expected one JSON object a line.")
    _refuse_duplicates(prompts, path.name)
    plain = tuple(prompt for prompt in prompts if prompt.variant is None)
    return Suite(name, plain, tuple(prompt for prompt in prompts if prompt.variant is not None), sampling)


def _records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise SuiteError(f"{path.name} has more than {MAX_FILE_BYTES >> 20} MiB; expected a suite of prompts.")
        data = path.read_bytes()
    except OSError as error:
        raise SuiteError(f"suite {path} cannot be read: {error.strerror or error}.") from error
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        try:
            record = json.loads(line.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_unique_keys)
        except UnicodeDecodeError as error:
            raise SuiteError(f"{where}: not UTF-8 at byte {error.start}.") from error
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise SuiteError(f"{where}: not JSON: {reason}; expected one object a line.") from error
        if not isinstance(record, dict):
            raise SuiteError(f"{where}: found {_kind(record)}; expected an object.")
        yield number, record


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for at, (key, _) in enumerate(pairs) if key in dict(pairs[:at]))
        raise ValueError(f"the key `{twice}` occurs more than once")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


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
        raise SuiteError(f"{where}: `sampling` is {_kind(sampling)}; expected an object.")
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
        answer = extract(_text(record, "solution", where), "boxed")
    if answer is None:
        raise SuiteError(f"{where}: `solution` has no \\boxed{{...}} and there is no `answer`; expected one of them.")
    tags = tuple(str(record[key]) for key in ("level", "type", "subject") if key in record)
    prompt_id = _id(record, where) if "id" in record else str(record.get("unique_id", default_id))
    return Prompt(prompt_id, (Message("user", problem),), answer, tags=tags)


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
        raise SuiteError(f"{where}: `{key}` is {_kind(value)}; expected a text{'' if empty else ' that is not empty'}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise SuiteError(f"{where}: `{key}` holds half a surrogate pair; expected whole characters.") from error
    return value


def _gold(value: Any, rule: Extraction, where: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise SuiteError(f"{where}: `answer` is {_kind(value)}; expected a text or a number.")
    gold = extract(str(value), rule) if rule in ("text", "choice") else canonical(str(value))
    if gold is None:
        raise SuiteError(
            f"{where}: `answer` is {str(value)[:40]!r}; expected a final answer that is not empty or an essay."
        )
    return gold


def _messages(value: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise SuiteError(f"{where}: `messages` is {_kind(value)}; expected a list of at least one message.")
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
        raise SuiteError(f"{where}: `checks` is {_kind(value)}; expected a list.")
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


def _kind(value: Any) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "a truth value",
        int: "a number",
        float: "a number",
    }
    return "an empty text" if value == "" else names.get(type(value), "null")
