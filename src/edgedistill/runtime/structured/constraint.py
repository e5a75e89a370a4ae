"""The form that a reply has to have, as the keywords of a generation ask for it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edgedistill.errors import GenerationError

Kind = Literal["json_schema", "grammar", "regex", "choices"]
ResponseFormat = Mapping[str, Any]
Schema = Mapping[str, Any] | type | bool
_ABOUT: dict[Kind, str] = {
    "json_schema": "JSON schema",
    "grammar": "grammar",
    "regex": "regular expression",
    "choices": "list of choices",
}
_ANY_OBJECT: dict[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Constraint:
    """A form; ``text`` is its JSON schema, grammar, regular expression, or list of choices as JSON."""

    kind: Kind
    text: str

    @property
    def about(self) -> str:
        """What an error calls it."""
        return _ABOUT[self.kind]


def constraint_of(
    *,
    response_format: ResponseFormat | None = None,
    json_schema: Schema | None = None,
    grammar: str | None = None,
    regex: str | None = None,
    choices: Sequence[str] | None = None,
) -> Constraint | None:
    """The form that one of these asks for; None if none does.

    Args:
        response_format: OpenAI's: of the type ``text``, ``json_object`` or ``json_schema``.
        json_schema: A schema, or a class with ``model_json_schema`` (Pydantic's).
        grammar: In Lark's syntax as llguidance takes it, or in GBNF.
        regex: Of the whole reply, in the syntax of Rust's crate regex.
        choices: The reply is one of these texts.

    Raises:
        GenerationError: Two forms at once, or a value that is none.
    """
    found = [
        one for one in (
            _of_format(response_format),
            None if json_schema is None else _of_schema(json_schema),
            None if grammar is None else Constraint("grammar", _text("grammar", grammar)),
            None if regex is None else Constraint("regex", _text("regex", regex)),
            None if choices is None else _of_choices(choices),
        ) if one is not None
    ]  # fmt: skip
    if len(found) > 1:
        raise GenerationError(
            f"A {found[0].about} and a {found[1].about} are given; a reply has one form.",
            hint="Give one of response_format, json_schema, grammar, regex and choices.",
        )
    return found[0] if found else None


def _of_format(given: ResponseFormat | None) -> Constraint | None:
    if given is None:
        return None
    kind = given.get("type") if isinstance(given, Mapping) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return _of_schema(given.get("schema", _ANY_OBJECT))
    inner = given.get("json_schema") if kind == "json_schema" else None
    if isinstance(inner, Mapping) and "schema" in inner:
        return _of_schema(inner["schema"])
    raise GenerationError(
        f"response_format is {str(given)[:80]}; expected the type 'text', 'json_object' or 'json_schema'.",
        hint='As in: {"type": "json_schema", "json_schema": {"name": "point", "schema": {...}}}',
    )


def _of_schema(given: Any) -> Constraint:
    maker = getattr(given, "model_json_schema", None)
    schema = maker() if callable(maker) else given
    if not isinstance(schema, Mapping | bool):
        raise GenerationError(
            f"json_schema is {str(given)[:80]!r}; expected a dict, or a class with model_json_schema (Pydantic's)."
        )
    try:
        return Constraint("json_schema", json.dumps(schema))
    except (TypeError, ValueError, RecursionError) as error:
        raise GenerationError(f"The JSON schema cannot be written as JSON: {error}.") from error


def _of_choices(given: Sequence[str]) -> Constraint:
    texts = [given] if isinstance(given, str) else list(given)
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise GenerationError(f"choices is {str(given)[:80]!r}; expected texts that are not empty.")
    return Constraint("choices", json.dumps(texts))


def _text(name: str, given: Any) -> str:
    if not isinstance(given, str) or not given.strip():
        raise GenerationError(f"{name} is {str(given)[:80]!r}; expected a text.")
    return given
