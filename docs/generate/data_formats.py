"""Pages of data formats: the manifest of a bundle, the report, suites; from the dataclasses that hold them."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from markup import cell, prose, table

from edgedistill.bundle import manifest
from edgedistill.catalog.reasoning import ReasoningGrammar, TagPair
from edgedistill.cli import json_outputs
from edgedistill.quantize.spec import WeightFormat
from edgedistill.verify.report.definitions import DEFINITIONS
from edgedistill.verify.report.json_schema import SCHEMA_PATH
from edgedistill.verify.suites.checks import KINDS
from edgedistill.verify.suites.json_schema import SCHEMA_PATH as SUITE_SCHEMA
from edgedistill.verify.suites.published import FORMATS
from edgedistill.verify.types import prompts

Schema = dict[str, Any]
_PUBLISHED = (
    "Tried in this order, whatever the case of the keys; other keys are left out. `choices` takes letters, numbers "
    "from 0 or texts as right answers; `MATH` is MATH-500 and AIME too, `questions` AMC, CMATH, BoolQ and others. "
    "GPQA's choices are shuffled, the same way every time."
)


def bundle_page() -> str:
    """Tables of manifest.json, from the outermost object in."""
    classes = (manifest.Manifest, manifest.ModelInfo, manifest.KVCacheInfo, manifest.WeightEntry, WeightFormat)
    more = (manifest.FileEntry, ReasoningGrammar, TagPair)
    return "\n\n".join(["## manifest.json", *(_section(cls) for cls in (*classes, *more))]) + "\n"


def suite_page() -> str:
    """Tables of keys, from the schema; of sampling settings, kinds of checks and published formats."""
    line: Schema = json.loads(SUITE_SCHEMA.read_text(encoding="utf-8"))["$defs"]["prompt"]
    keys = table(
        ("Key", "Type", "Meaning"),
        ((f"`{name}`", _kind(value), cell(value["description"])) for name, value in line["properties"].items()),
    )
    kinds = table(("Kind", "Parameters"), ((f"`{k}`", _codes(KINDS[k][0])) for k in KINDS))
    known = table(
        ("Format", "Keys"),
        ((one.name, ", ".join(f"`{key}`".replace("|", "` or `") for key in one.keys)) for one in FORMATS),
    )
    keys = keys.replace("(#check)", "(#kinds-of-checks)")
    parts = ["## Keys of a prompt", keys, prose(line["description"]), _section(prompts.SuiteSampling)]
    parts += ["## Kinds of checks", kinds, "## Published formats", _PUBLISHED, known]
    return "\n\n".join(parts) + "\n"


def report_page() -> str:
    """Tables of every object in a report, from its schema, and what the numbers mean."""
    schema: Schema = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    parts = [f"Schema `{schema['$id']}`. `null` stands for a number that is not finite or was not measured."]
    objects: dict[str, Schema] = schema["$defs"]
    first = schema["$ref"].rpartition("/")[2]
    for name in (first, *sorted(set(objects) - {first})):
        parts += [f"## {name}", prose(objects[name].get("description")), _properties(objects[name])]
    parts.append("## What the numbers mean")
    parts.append(table(("Number", "Definition"), ((f"`{k}`", cell(v)) for k, v in DEFINITIONS.items())))
    return "\n\n".join(part for part in parts if part) + "\n"


def json_page() -> str:
    """What each command prints with ``--json``, one section a command, its objects below it."""
    parts = []
    for command in sorted(json_outputs.OUTPUTS):
        schema = json_outputs.schema(command)
        root = {key: value for key, value in schema.items() if not key.startswith("$") or key == "$ref"}
        anchor = schema_file(command).removesuffix(".schema.json")
        parts += [
            f"## {command}",
            f"{_kind(root, anchor)}. JSON schema: [{schema_file(command)}]({schema_file(command)})",
        ]
        for name, item in schema["$defs"].items():
            heading = f"### {name} {{ #{anchor}-{name.lower()} }}"
            parts += [heading, prose(item.get("description")), _properties(item, anchor)]
    return "\n\n".join(part for part in parts if part) + "\n"


def schema_file(command: str) -> str:
    """The name of the file with the schema of a command."""
    return f"{command.lower().replace(' ', '-')}.schema.json"


def schema_files() -> dict[str, str]:
    """Name and text of the schema of every command."""
    commands = (*json_outputs.OUTPUTS, *json_outputs.REPORTS)
    return {schema_file(name): json.dumps(json_outputs.schema(name), indent=2) + "\n" for name in commands}


def _section(cls: type) -> str:
    """A heading, the docstring and a table of a dataclass's fields."""
    about = _attributes(cls.__doc__ or "")
    rows = []
    for field in dataclasses.fields(cls):
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
        rows.append((f"`{field.name}`", f"`{kind}`".replace("|", "\\|"), cell(about.get(field.name, ""))))
    described = any(row[2] for row in rows)
    head = ("Field", "Type", "Meaning") if described else ("Field", "Type")
    return f"### {cls.__name__}\n\n{prose(cls.__doc__)}\n\n" + table(head, (row[: len(head)] for row in rows))


def _attributes(doc: str) -> dict[str, str]:
    """The ``Attributes:`` section of a docstring by name."""
    _, _, section = doc.partition("Attributes:\n")
    entries = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, re.MULTILINE)
    return {name: re.sub(r"``(.+?)``", r"`\1`", " ".join(text.split())) for name, text in entries}


def _properties(item: Schema, page: str = "") -> str:
    rows = ((f"`{name}`", _kind(value, page)) for name, value in item.get("properties", {}).items())
    return table(("Field", "Type"), rows)


def _kind(value: Schema, page: str = "") -> str:
    """The type of a property in words, with links to objects; ``page`` begins the anchors of a section."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return f"[{name}](#{page}-{name.lower()})" if page else f"[{name}](#{name.lower()})"
    if "anyOf" in value:
        return " or ".join(_kind(one, page) for one in value["anyOf"])
    if "enum" in value or "const" in value:
        return " or ".join(f"`{json.dumps(one)}`" for one in value.get("enum", [value.get("const")]))
    kind = value.get("type", "any")
    if kind == "array":
        items = value.get("prefixItems") or ([value["items"]] if isinstance(value.get("items"), dict) else [])
        return f"list of {', '.join(_kind(one, page) for one in items) or 'any'}"
    if kind == "object" and isinstance(value.get("additionalProperties"), dict):
        return f"object of {_kind(value['additionalProperties'], page)}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _codes(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
