"""The page of the command line: every command with its options, from the parser that reads them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from markup import cell, table

from edgedistill.cli.parser import VERBS, verb_parser

if TYPE_CHECKING:
    from collections.abc import Iterator


def page(_: None = None) -> str:
    """Markdown of all commands in the order of ``edgedistill --help``."""
    parts = [
        "Every command takes `--help`. Results go to stdout, notes and progress to stderr. Exit codes: 0 done, "
        "1 failed, 2 bad input, 3 inconclusive, 130 interrupted.",
        table(("", "Command", ""), ((v.group, f"[`{v.name}`](#edgedistill-{v.name})", cell(v.summary)) for v in VERBS)),
    ]
    for verb in VERBS:
        parser = verb_parser(verb)
        summary = f"{verb.summary[:1].upper()}{verb.summary[1:]}."
        parts += _sections(parser, summary, 2)
    return "\n\n".join(part for part in parts if part) + "\n"


def _sections(parser: argparse.ArgumentParser, summary: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} {parser.prog}"
    yield cell(summary)
    yield f"```text\n{_usage(parser)}\n```"
    for group in parser._action_groups:
        actions = [a for a in group._group_actions if a.help is not argparse.SUPPRESS and not _is_plain(a)]
        rows = table(("Option", "Meaning"), ((_name(a), _meaning(a)) for a in actions))
        if rows:
            title = (group.title or "options").replace("positional arguments", "arguments")
            yield f"**{title[:1].upper()}{title[1:]}**" + (f": {cell(group.description)}" if group.description else "")
            yield rows
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, child in action.choices.items():
                text = helps.get(name, "")
                yield from _sections(child, f"{text[:1].upper()}{text[1:]}.", level + 1)
    if parser.epilog and level == 2:  # subcommands repeat it
        yield f"```text\n{parser.epilog.strip()}\n```"


def _is_plain(action: argparse.Action) -> bool:
    """Help, which every command has, and the list of subcommands, which have sections of their own."""
    return isinstance(action, argparse._HelpAction | argparse._SubParsersAction)


def _usage(parser: argparse.ArgumentParser) -> str:
    names = [_argument(a) for a in parser._actions if not a.option_strings and not _is_plain(a)]
    required = [f"{a.option_strings[0]} {_argument(a)}" for a in parser._actions if a.option_strings and a.required]
    actions = ["ACTION"] if any(isinstance(a, argparse._SubParsersAction) for a in parser._actions) else []
    return " ".join([parser.prog, *actions, *required, *names, "[options]"])


def _argument(action: argparse.Action) -> str:
    name = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if action.choices is not None and action.metavar is None:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    return f"[{name}]" if action.nargs == "?" and not action.option_strings else name


def _name(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else f" {_argument(action)}"
    return (
        f"`{', '.join(action.option_strings)}{value}`".replace("|", "\\|")
        if action.option_strings
        else f"`{_argument(action)}`"
    )


def _meaning(action: argparse.Action) -> str:
    return cell((action.help or "").replace("%%", "%"))
