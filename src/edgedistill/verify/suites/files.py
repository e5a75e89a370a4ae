"""Reads suites from files: in the toolkit's own format, in published formats, or with columns that the user names.

The keys of a record tell its format; all records of a file have to have the same. In the toolkit's own format a first
object {"suite": name, "sampling": {...}} may precede the prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.errors import SuiteError
from edgedistill.verify.suites.options import SuiteOptions
from edgedistill.verify.suites.own import header, read_own
from edgedistill.verify.suites.published import published, read_mapped
from edgedistill.verify.suites.records import MAX_RECORDS, Record, records, suffix
from edgedistill.verify.suites.tables import hub_rows
from edgedistill.verify.types import Suite, SuiteSampling

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgedistill.verify.suites.draft import Draft
    from edgedistill.verify.types import Prompt

HUB = "hub:"
"""Prefix of the name of a data set on the Hugging Face Hub: ``hub:OWNER/NAME``."""
_PUBLISHED_WITH_PROMPT = ("test_list", "entry_point", "instruction_id_list")
"""Keys of published formats that have ``prompt`` too."""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A suite, and how it was read.

    Attributes:
        suite: The suite.
        format: The recognised format; "built in" for a built-in suite.
        records: Number of records in the file, without a header.
        left_out: Ids of prompts without a right answer (``"answer": null``), left out because others have one.
    """

    suite: Suite
    format: str = "built in"
    records: int = 0
    left_out: tuple[str, ...] = ()


def read_suite(path: Path | str, options: SuiteOptions | None = None) -> Suite:
    """Read a suite; its name is the file's stem, or the directory's name, unless a header says otherwise.

    Raises:
        SuiteError: The file cannot be read, is not UTF-8, or has a malformed record (the message names its line).
    """
    return read_file(path, options).suite


def read_file(path: Path | str, options: SuiteOptions | None = None) -> ReadFile:
    """``read_suite``, with the recognised format and what was left out."""
    options = options or SuiteOptions()
    whole, name = _names(path)
    sampling, form = SuiteSampling(), ""
    drafts: list[Draft] = []
    for record in islice(_records(path, options.split), MAX_RECORDS + 1):
        if "suite" in record.fields and not drafts and not ({"prompt", "messages"} & set(record.fields)):
            name, sampling = header(record.fields, record.where)
            continue
        found, draft = _draft(record, options.columns)
        if form and found != form:
            raise SuiteError(f"{record.where}: the format is {found}, that of what came before {form}; expected one.")
        form = found
        drafts.append(draft)
    if not drafts:
        raise SuiteError(f"{whole} has no prompts; expected one JSON object a line, or an array of them.")
    if len(drafts) > MAX_RECORDS:
        raise SuiteError(f"{whole} has more than {MAX_RECORDS} prompts, the most expected.")
    kept, left_out = _answered(drafts)
    shots, asked = _shots(kept, options)
    prompts = [draft.prompt(options.template, shots, options.tolerance) for draft in asked]
    _refuse_duplicates(prompts, whole)
    plain = tuple(prompt for prompt in prompts if prompt.variant is None)
    suite = Suite(name, plain, tuple(prompt for prompt in prompts if prompt.variant is not None), sampling)
    return ReadFile(suite, form, len(drafts), left_out)


def _names(path: Path | str) -> tuple[str, str]:
    """The name of a source in errors, and the suite's name."""
    if isinstance(path, str):
        if path.startswith(HUB):
            return path, path.removeprefix(HUB)
        path = Path(path)
    if path.is_dir():
        return path.resolve().name, path.resolve().name
    return path.name, path.name.removesuffix(".gz").removesuffix(suffix(path.name))


def _records(path: Path | str, split: str | None) -> Iterator[Record]:
    if isinstance(path, str) and path.startswith(HUB):
        for number, row in enumerate(hub_rows(path.removeprefix(HUB), split), start=1):
            yield Record(f"{path}, row {number}", f"{number:05}", row)
        return
    yield from records(Path(path), split)


def _draft(record: Record, columns: Mapping[str, tuple[str, ...]]) -> tuple[str, Draft]:
    fields: Mapping[str, Any] = record.fields
    if columns:
        return "mapped", read_mapped(fields, record.where, record.default_id, columns)
    if ("prompt" in fields or "messages" in fields) and not any(key in fields for key in _PUBLISHED_WITH_PROMPT):
        return "edgedistill", read_own(fields, record.where, record.default_id)
    form, row = published(fields, record.where)
    return form.name, form.read(row, record.where, record.default_id)


def _answered(drafts: list[Draft]) -> tuple[list[Draft], tuple[str, ...]]:
    """The prompts that can be scored, and the ids of those that cannot; all of them if none can be scored."""
    without = {draft.id for draft in drafts if draft.unanswered}
    if not without or not any(draft.golds or draft.checks for draft in drafts):
        return drafts, ()
    kept = [draft for draft in drafts if draft.id not in without and draft.variant_of not in without]
    return kept, tuple(draft.id for draft in drafts if draft.unanswered and draft.variant is None)


def _shots(drafts: list[Draft], options: SuiteOptions) -> tuple[list[Draft], list[Draft]]:
    """The few-shot examples, and the remaining prompts."""
    if not options.few_shot:
        return [], drafts
    source = drafts
    if options.few_shot_from is not None:
        source = []
        for record in _records(options.few_shot_from, None):
            if "suite" in record.fields and not source:
                continue
            source.append(_draft(record, options.columns)[1])
            if len(source) == options.few_shot:
                break
    shots = [draft for draft in source if draft.variant is None][: options.few_shot]
    used = {id(shot) for shot in shots}
    asked = [draft for draft in drafts if id(draft) not in used]
    if len(shots) < options.few_shot or not asked:
        raise SuiteError(
            f"{options.few_shot} examples were asked for, and the file has {len(source)} records; expected more.",
            hint="Name another file with --few-shot-from, or ask for fewer.",
        )
    return shots, asked


def _refuse_duplicates(prompts: list[Prompt], name: str) -> None:
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise SuiteError(f"{name}: the id `{prompt.id}` occurs more than once; expected unique ids.")
        seen.add(prompt.id)
