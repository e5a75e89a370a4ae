"""``edgedistill suite``: checks a file of questions before hours of sampling depend on it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.atomic_file import write_whole
from edgedistill.cli import console, verification
from edgedistill.cli.suite_reading import add_reading, open_suite
from edgedistill.errors import EXIT_FAIL, OutputError, UsageError

if TYPE_CHECKING:
    import argparse

    from edgedistill.verify.sampling.suite_check import SuiteCheck
    from edgedistill.verify.types import Prompt

EXAMPLES = """\
examples:
  edgedistill suite new questions.jsonl
  edgedistill suite check questions.jsonl
  edgedistill suite check test.csv --map prompt=ask,gold=right --template "{prompt} Answer briefly."
  edgedistill suite check MATH-500.jsonl --bundle my-bundle       one prompt as that model is given it
  edgedistill suite show arithmetic --prompts 3

exit codes: 0 every right answer can be read, 1 some cannot, 2 bad input"""

NEW: tuple[dict[str, Any], ...] = (
    {"suite": "my-questions", "sampling": {"temperature": 0.6, "max_new_tokens": 512}},
    {"id": "sum", "prompt": "What is 12 + 30?", "answer": 42, "tags": ["numbers"]},
    {"id": "sum-reworded", "prompt": "Add 30 to 12.", "answer": 42, "variant": "paraphrase", "variant_of": "sum"},
    {"id": "third", "prompt": "Write 1/3 as a decimal, to 3 places.", "answer": 0.333, "tolerance": 0.001},
    {"id": "capital", "prompt": "What is the capital of France?", "answer": ["Paris", "City of Paris"]},
    {"id": "prime", "prompt": "Is 7 a prime number? Answer yes or no.", "answer": "yes"},
    {"id": "planet", "prompt": "Which planet is nearest to the sun?", "choices": ["Venus", "Mercury", "Mars"],
     "answer": "Mercury"},
    {"id": "short", "prompt": "Describe rain in one line, without commas.",
     "checks": [{"kind": "lines", "n": 1}, {"kind": "no-commas"}]},
)  # fmt: skip


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check", help="show how a file is read and scored, and what could not be scored", allow_abbrev=False
    )
    show = actions.add_parser("show", help="prompts with their right answers", allow_abbrev=False)
    for one in (check, show):
        one.add_argument("suite", metavar="SUITE", help="a file, a directory, or a built-in suite")
        one.add_argument("--json", action="store_true", help="print the result as JSON")
    check.add_argument("--bundle", type=Path, metavar="BUNDLE", help="show the example as this bundle's template "
                       "makes it")  # fmt: skip
    show.add_argument(
        "--prompts", type=int, default=5, metavar="P", help="number of prompts, spread over the suite (5)"
    )
    show.add_argument("--id", metavar="ID", help="show only the prompt with this id")
    for one in (check, show):
        add_reading(one)
    new = actions.add_parser("new", help="write a small suite with every kind of question", allow_abbrev=False)
    new.add_argument("file", type=Path, metavar="FILE", help="JSONL file to write")
    new.add_argument("--force", action="store_true", help="replace an existing file")
    actions.add_parser("schema", help="print the JSON schema of a line of a suite", allow_abbrev=False)


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    return {"check": _check, "show": _show, "new": _new, "schema": _schema}[args.action](args)


def _check(args: argparse.Namespace) -> int:
    from edgedistill.verify.sampling.suite_check import check_suite, sentences

    # Programs are not run here; --allow-code is for what samples replies.
    args.allow_code = True
    found = check_suite(open_suite(args))
    rendered = _rendered(found.example, args.bundle)
    if args.json:
        console.out_json({**found.to_dict(), "warnings": sentences(found), "rendered": rendered})
    else:
        console.out(console.fields(_fields(found)))
        for sentence in sentences(found):
            console.out()
            verification.paragraph(f"{console.style('warning', 'yellow')}: {sentence}")
        console.out()
        console.out(console.style(f"The prompt `{found.example.id}`" + (
            f", as the template of {args.bundle} makes it" if args.bundle else ""), "bold"))  # fmt: skip
        console.out(console.lines(rendered))
    return EXIT_FAIL if found.unread else 0


def _fields(found: SuiteCheck) -> list[tuple[str, str]]:
    def listed(counts: dict[str, int]) -> str:
        return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"

    pairs = [
        ("suite", f"{found.name} ({found.sha256[:12]})"),
        ("format", f"{found.format}" + (f", {found.records} records" if found.records else "")),
        ("prompts", f"{found.prompts}" + (f" and {found.variants} variants" if found.variants else "")),
        ("scored", f"{found.scored} of {found.prompts} prompts"),
        ("right answers", f"{found.golds}: {listed(found.types)}" if found.golds else "none"),
        ("read by", listed(found.rules)),
        ("unread", str(len(found.unread))),
    ]
    return [*pairs, ("tags", str(found.tags))] if found.tags else pairs


def _rendered(prompt: Prompt, bundle: Path | None) -> str:
    if bundle is None:
        return "\n".join(f"{message.role}: {message.content}" for message in prompt.messages)
    from edgedistill.runtime.model import open_bundle

    with open_bundle(bundle) as model:
        return model.render([{"role": message.role, "content": message.content} for message in prompt.messages])


def _show(args: argparse.Namespace) -> int:
    from edgedistill.verify.options import spread

    args.allow_code = True
    suite = open_suite(args).suite
    if args.id is not None:
        chosen = [prompt for prompt in (*suite.prompts, *suite.variants) if prompt.id == args.id]
        if not chosen:
            raise UsageError(f"Suite `{suite.name}` has no prompt `{args.id}`; its first is `{suite.prompts[0].id}`.")
    else:
        if args.prompts < 1:
            raise UsageError(f"--prompts is {args.prompts}; expected at least 1.")
        chosen = spread(suite.prompts, args.prompts)
    if args.json:
        console.out_json([_entry(prompt) for prompt in chosen])
        return 0
    for prompt in chosen:
        scored = ", ".join(prompt.golds) if prompt.golds else "; ".join(
            " ".join([check.kind, *(f"{name}={value}" for name, value in check.parameters)]) for check in prompt.checks
        )  # fmt: skip
        console.out(console.style(prompt.id, "bold") + (f"  {' '.join(prompt.tags)}" if prompt.tags else ""))
        console.out(console.lines(_rendered(prompt, None)))
        console.out(console.style(f"right: {scored or 'not scored'} (read by {prompt.extract})", "dim"))
        console.out()
    return 0


def _entry(prompt: Prompt) -> dict[str, Any]:
    """A prompt as the toolkit's own format has it."""
    found: dict[str, Any] = {
        "id": prompt.id,
        "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
        "extract": prompt.extract,
    }
    if prompt.golds and not prompt.tests:
        found["answer"] = prompt.golds[0] if len(prompt.golds) == 1 else list(prompt.golds)
    for name in ("choices", "tags", "tests", "tolerance", "variant", "variant_of"):
        if (value := getattr(prompt, name)) not in (None, (), ""):
            found[name] = list(value) if isinstance(value, tuple) else value
    if prompt.checks:
        found["checks"] = [{"kind": check.kind, **dict(check.parameters)} for check in prompt.checks]
    return found


def _new(args: argparse.Namespace) -> int:
    if args.file.is_dir():
        raise UsageError(f"{args.file} is a directory; expected a file.", hint=f"Try: {args.file}/questions.jsonl")
    if args.file.exists() and not args.force:
        raise UsageError(f"{args.file} already exists.", hint="Name another file, or replace it with --force.")
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in NEW)
    try:
        write_whole(args.file, text)
    except OSError as error:
        raise OutputError(f"{args.file} cannot be written: {error.strerror}.") from error
    console.out(f"written: {args.file}")
    console.out(f"Try: edgedistill suite check {args.file}")
    return 0


def _schema(args: argparse.Namespace) -> int:
    from edgedistill.verify.suites.json_schema import SCHEMA_PATH

    del args
    console.out_json_text(SCHEMA_PATH.read_text(encoding="utf-8"))
    return 0
