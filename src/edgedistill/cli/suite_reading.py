"""How the commands that take a suite read its file: columns, wording, examples, part, programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bounded_file import read_bounded
from edgedistill.cli import console
from edgedistill.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edgedistill.verify.suites.files import ReadFile
    from edgedistill.verify.types import Suite

SUITE_HELP = (
    "arithmetic (default; arithmetic-seed7x60: of another seed, 60 prompts in each of 5 bands), instructions, "
    "open-ended, a file (JSONL, JSON, CSV, TSV, Parquet, .gz) or a directory of such files, as published or your own, "
    "or hub:OWNER/NAME (extra: datasets)"
)

_LARGEST_TEMPLATE = 1 << 20


def add_reading(parser: argparse.ArgumentParser) -> None:
    """How a suite's file is read."""
    group = parser.add_argument_group("how a suite's file is read (published formats are recognized)")
    group.add_argument("--map", action="append", default=[], metavar="PAIRS", help="which keys mean what, for instance "
                       "prompt=question,gold=answer (also choices, id, tags, solution, tests, tolerance)")  # fmt: skip
    group.add_argument("--template", metavar="TEXT", help="the user's message, with {prompt}, {choices} or any key of "
                       "the record in braces; @FILE reads it from a file")  # fmt: skip
    group.add_argument("--few-shot", type=int, default=0, metavar="N", help="show N solved examples first: the first "
                       "of the suite, which are then not asked")  # fmt: skip
    group.add_argument("--few-shot-from", type=Path, metavar="FILE", help="take the examples from this file")
    group.add_argument("--tolerance", type=float, metavar="X", help="largest absolute difference from a right number")
    group.add_argument("--split", metavar="NAME", help="train, test or validation, of a directory or data set")
    group.add_argument("--allow-code", action="store_true", help="run the programs that replies contain, as HumanEval "
                       "and MBPP need: in a process with limits of time and memory, as your user")  # fmt: skip


def open_suite(args: argparse.Namespace) -> ReadFile:
    """The suite of the command line, read as its options say. Raises SuiteError, UsageError."""
    from edgedistill.verify.suites.options import SuiteOptions, parse_map
    from edgedistill.verify.suites.registry import open_suite

    template: str | None = args.template
    if template is not None and template.startswith("@"):
        try:
            data = read_bounded(Path(template[1:]), _LARGEST_TEMPLATE)
            if len(data) > _LARGEST_TEMPLATE:
                raise UsageError(f"The template {template[1:]} has more than {_LARGEST_TEMPLATE >> 20} MiB.")
            template = data.decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The template {template[1:]} cannot be read: {error}.") from error
    elif template is not None:
        template = template.replace("\\n", "\n")
    options = SuiteOptions(
        columns=parse_map(args.map) if args.map else {},
        template=template,
        few_shot=args.few_shot,
        few_shot_from=args.few_shot_from,
        tolerance=args.tolerance,
        split=args.split,
        allow_code=args.allow_code,
    )
    return open_suite(args.suite, options)


def suite(args: argparse.Namespace) -> Suite:
    """``open_suite``, with a warning about what cannot be scored: before anything is sampled."""
    from edgedistill.verify.sampling.suite_check import warnings

    read = open_suite(args)
    for sentence in warnings(read):
        console.note(f"warning: {sentence}")
    return read.suite
