"""Generates the published JSON schema of a line of a suite file, ``suite.schema.json``, from the format's constants.

``python -m edgedistill.verify.suites.json_schema`` writes the file; tests compare it with this module and with what the
reader accepts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from edgedistill.verify.suites import ifeval
from edgedistill.verify.suites.checks import INTEGERS, KINDS, LISTS
from edgedistill.verify.suites.draft import MAX_CHOICES
from edgedistill.verify.suites.own import MAX_CHECKS, MAX_MESSAGES, MAX_TAGS, NUMERIC_RANGES
from edgedistill.verify.suites.values import MAX_TEXT
from edgedistill.verify.types import Extraction, Role, Variant

SCHEMA_PATH = Path(__file__).with_name("suite.schema.json")
Schema = dict[str, Any]

_TEXT = {"type": "string", "maxLength": MAX_TEXT}
_FULL = {**_TEXT, "pattern": r"\S"}
_NUMBER_OR_TEXT = {"anyOf": [{"type": "number"}, _FULL]}


def suite_schema() -> Schema:
    """The schema of one line: a header or a prompt."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:edgedistill:suite:v1",
        "title": "a line of an edgedistill suite",
        "anyOf": [{"$ref": "#/$defs/header"}, {"$ref": "#/$defs/prompt"}],
        "$defs": {"header": _header(), "prompt": _prompt(), "check": _check()},
    }


def _header() -> Schema:
    return {
        "description": "The first line of a file, where it names the suite and its sampling settings.",
        "type": "object",
        "required": ["suite"],
        "additionalProperties": False,
        "properties": {
            "suite": {**_FULL, "description": "the suite's name in reports"},
            "sampling": {
                "description": "settings that the suite asks for; the command line's go before them",
                "type": "object",
                "additionalProperties": False,
                "properties": {
                    name: {"type": "integer" if isinstance(low, int) else "number", "minimum": low, "maximum": high}
                    for name, (low, high) in NUMERIC_RANGES.items()
                },
            },
        },
    }


def _prompt() -> Schema:
    message = {
        "type": "object",
        "required": ["role", "content"],
        "additionalProperties": False,
        "properties": {"role": {"enum": list(get_args(Role))}, "content": _TEXT},
    }
    properties: Schema = {
        "id": {**_NUMBER_OR_TEXT, "description": "unique; the noise of sampling is keyed by it (left out: the number "
               "of the line)"},
        "prompt": {**_TEXT, "description": "the question; or `messages`"},
        "messages": {"type": "array", "minItems": 1, "maxItems": MAX_MESSAGES, "items": message,
                     "description": "a conversation that ends with the user"},
        "answer": {"description": "the right answer, or a list of several; null: there is none, and the prompt is left "
                   "out beside others that have one. With `choices` a letter, or the text of one of them",
                   "anyOf": [*_NUMBER_OR_TEXT["anyOf"], {"type": "null"},
                             {"type": "array", "minItems": 1, "items": _NUMBER_OR_TEXT}]},
        "tolerance": {"type": ["number", "null"], "minimum": 0,
                      "description": "largest absolute difference from a right number (left out: exact)"},
        "choices": {"type": ["array", "null"], "minItems": 2, "maxItems": MAX_CHOICES, "items": _NUMBER_OR_TEXT,
                    "description": "texts of the choices A, B, ...; listed under a `prompt`"},
        "extract": {"enum": list(get_args(Extraction)), "description": "where a reply's answer is; see below"},
        "tags": {"type": "array", "maxItems": MAX_TAGS, "items": {"type": "string"}, "description": "free labels"},
        "checks": {"type": "array", "maxItems": MAX_CHECKS, "items": {"$ref": "#/$defs/check"},
                   "description": "conditions that a program decides; see below"},
        "tests": {**_TEXT, "description": "a Python program that calls what the reply defines, and raises where it is "
                  "wrong; takes `--allow-code`"},
        "solution": {**_FULL, "type": ["string", "null"],
                     "description": "a good reply, which examples (`--few-shot`) show instead of the bare answer"},
        "variant": {"enum": [*get_args(Variant), None], "description": "what was varied: asked by the audit only"},
        "variant_of": {**_FULL, "type": ["string", "null"], "description": "the id of the prompt that was changed"},
    }  # fmt: skip
    return {
        "description": "A question. Keys that are not listed here can be named in a template, and count for nothing "
        "else.",
        "type": "object",
        "oneOf": [{"required": ["prompt"]}, {"required": ["messages"]}],
        "properties": properties,
    }


def _check() -> Schema:
    def parameter(name: str) -> Schema:
        if name in INTEGERS:
            return {"type": "integer", "minimum": 0}
        if name in ifeval.CHOICES:
            return {"enum": list(ifeval.CHOICES[name])}
        text = {"type": "string", "minLength": 1}
        return {"type": "array", "minItems": 1, "items": text} if name in LISTS else text

    kinds = [
        {
            "type": "object",
            "required": ["kind", *names],
            "additionalProperties": False,
            "properties": {"kind": {"const": kind}, **{name: parameter(name) for name in names}},
        }
        for kind, (names, _) in KINDS.items()
    ]
    return {"description": "A condition on a reply.", "oneOf": kinds}


def schema_text() -> str:
    """The content of the file."""
    return json.dumps(suite_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
