"""The command line's grammar: verbs, help pages, one-line usage errors with the nearest known name."""

from __future__ import annotations

import argparse
import difflib
import importlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Protocol, cast

from edgedistill._version import __version__
from edgedistill.cli import console
from edgedistill.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class VerbModule(Protocol):
    """What the file of a verb provides; ``EXAMPLES`` stand below the help."""

    EXAMPLES: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the verb's arguments."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do it; returns the exit code."""
        ...


@dataclass(frozen=True, slots=True)
class Verb:
    """A command: its ``name`` (also the name of its module), one line for the overview, and what it is for."""

    name: str
    summary: str
    group: str


_MAKE, _USE, _CHECK, _LOOK, _SET_UP = (
    "make a bundle",
    "use it",
    "check it against its original",
    "look at it",
    "set up",
)
VERBS = (
    Verb("plan", "predict size, memory and speed of a bundle before it is made (extra: export)", _MAKE),
    Verb("export", "make a quantized ONNX bundle of a model (extra: export)", _MAKE),
    Verb("tune", "train a bundle's scales and norms towards its original (extras: torch, export)", _MAKE),
    Verb("compare", "measure several formats of a model: divergence, speed, memory, size (extra: export)", _MAKE),
    Verb("sign", "sign a bundle, so that devices can refuse any other (extra: sign)", _MAKE),
    Verb("layout", "write a bundle as optimum, transformers.js or onnxruntime-genai expect it (extra: export)", _MAKE),
    Verb("push", "upload a bundle to the Hub", _MAKE),
    Verb("pull", "download a bundle from the Hub", _USE),
    Verb("run", "answer one prompt with a bundle", _USE),
    Verb("chat", "talk to a bundle in the terminal", _USE),
    Verb("serve", "answer programs over HTTP, as OpenAI's API does (extra: server)", _USE),
    Verb("tui", "open the terminal UI on the bundle manager: chat, profiler, comparisons", _USE),
    Verb("verify", "compare a bundle with its reference: pass, fail or inconclusive", _CHECK),
    Verb("audit", "examine one model alone: what is behind its consistency", _CHECK),
    Verb("baseline", "store a reference's samples, so that a gate needs no reference", _CHECK),
    Verb("suite", "check, show or start a file of questions", _CHECK),
    Verb("report", "show a stored report again, or what changed between two", _CHECK),
    Verb("inspect", "show what is in a bundle: sizes, bits per weight, plan, hashes", _LOOK),
    Verb("bench", "measure a bundle on this machine: tokens/s, load time, memory", _LOOK),
    Verb("selftest", "check which numerical properties hold on this machine", _LOOK),
    Verb("profiles", "list, show, validate and detect hardware profiles", _SET_UP),
    Verb("models", "list built-in models and download small real ones", _SET_UP),
    Verb("cache", "show or clear prompts and packed weights kept on disk", _SET_UP),
    Verb("families", "list the model families that export knows, and what tests show of each", _SET_UP),
    Verb("completion", "print a script that completes commands and options in your shell", _SET_UP),
)

_EXAMPLES = """\
examples:
  edgedistill export tiny-reasoner -o my-bundle
  edgedistill run my-bundle "What is 17 + 25?"
  edgedistill chat my-bundle

exit codes: 0 done, 1 failed, 2 bad input, 3 inconclusive, 130 interrupted"""


class Parser(argparse.ArgumentParser):
    """ArgumentParser whose errors are UsageError, in one line, with the nearest option."""

    def error(self, message: str) -> NoReturn:
        """Raise UsageError instead of printing the usage and leaving."""
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", hint=self._hint(message))

    @property
    def has_actions(self) -> bool:
        """Whether the command has subcommands."""
        return self._subparsers is not None

    def verbs(self) -> list[Parser]:
        """The parsers of its subcommands."""
        found = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return list(found[0].choices.values()) if found else []

    def describe_verbs(self) -> None:
        """Give every subcommand its line in the overview as the description on its own page."""
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                for shown in action._choices_actions:
                    if shown.help:
                        action.choices[shown.dest].description = f"{shown.help[:1].upper()}{shown.help[1:]}."

    def leaves(self) -> list[Parser]:
        """The parsers of its subcommands; itself, if it has none."""
        return self.verbs() or [self]

    def _hint(self, message: str) -> str:
        if re.search(r"--procedure: invalid choice: '(fast|exact)'", message):
            return "Kernels are chosen with --numerics fast or --numerics exact."
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        if unknown:
            known = [o for one in (self, *self.leaves()) for action in one._actions for o in action.option_strings]
            if near := nearest(unknown[1], known):
                return f"Did you mean {near}?"
        choice = re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", message)
        if choice and (near := nearest(choice[1], re.findall(r"[\w-]+", choice[2]))):
            return f"Did you mean {near}?"
        return f"See: {self.prog} --help"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to a misspelt one, or None."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


RENAMED = {
    "--output": "--out",
    "--formats": "--format",
    "--path": "--numerics",
    "--mode": "--procedure",
    "--repeats": "--rounds",
}
"""Options by their old names, which go on working with a note."""
_NUMERICS = ("fast", "exact")
_DELIBERATE = "--procedure=deliberate"


def _current_names(arguments: Sequence[str], parser: Parser) -> list[str]:
    """``arguments`` with old names of options replaced, and a note about each."""
    known = {name for one in parser.leaves() for name in one._option_string_actions}
    current = []
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        new = RENAMED.get(name)
        if argument == "--deliberate" and argument not in known:
            console.note("note: --deliberate is called --procedure deliberate now.")
            current.append(_DELIBERATE)
            continue
        if name == "--mode" and (value or "".join(arguments[index + 1 : index + 2])) in _NUMERICS:
            new = "--numerics"
        if new is None or name in known or new not in known:
            current.append(argument)
            continue
        console.note(f"note: {name} is called {new} now.")
        current.append(f"{new}{equals}{value}")
    return current


def parse(arguments: Sequence[str]) -> argparse.Namespace | None:
    """Parse a command line into a namespace with ``verb``; None if there was no verb (the help is printed).

    Raises:
        UsageError: Unknown verb, unknown or malformed option, missing argument.
        SystemExit: After ``--help`` and ``--version``.
    """
    position = next((i for i, a in enumerate(arguments) if not a.startswith("-")), len(arguments))
    top = _top_parser()
    top.parse_args(arguments[:position])
    if position == len(arguments):
        top.print_help()
        return None
    verb = _find_verb(arguments[position])
    parser = verb_parser(verb)
    rest = _current_names(arguments[position + 1 :], parser)
    # An optional positional after an option (run BUNDLE -n 9 PROMPT) needs the intermixed kind of parsing.
    args = parser.parse_args(rest) if parser.has_actions else parser.parse_intermixed_args(rest)
    args.verb = verb.name
    console.configure(quiet=args.quiet, color=args.color)
    return args


def verb_parser(verb: Verb) -> Parser:
    """The parser of one command."""
    parser = Parser(
        prog=f"edgedistill {verb.name}",
        description=f"{verb.summary[:1].upper()}{verb.summary[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _configure(parser, verb)
    return parser


def full_parser() -> Parser:
    """One parser of all commands, for what walks over them: completion, the reference page of the command line."""
    parser = Parser(prog="edgedistill", allow_abbrev=False)
    parser.add_argument("-V", "--version", action="version", version=f"edgedistill {__version__}")
    commands = parser.add_subparsers(dest="verb", metavar="COMMAND")
    for verb in VERBS:
        _configure(commands.add_parser(verb.name, help=verb.summary, allow_abbrev=False), verb)
    return parser


def _configure(parser: Parser, verb: Verb) -> None:
    module = load_verb(verb.name)
    module.configure(parser)
    parser.epilog = module.EXAMPLES
    parser.describe_verbs()
    for one in parser.leaves():
        one.epilog, one.formatter_class = module.EXAMPLES, argparse.RawDescriptionHelpFormatter
        group = one.add_argument_group("output")
        group.add_argument("-q", "--quiet", action="store_true", help="print no progress and no notes")
        group.add_argument(
            "--color",
            choices=("auto", "always", "never"),
            default="auto",
            help="auto (default): on a terminal, unless NO_COLOR is set",
        )


def _top_parser() -> Parser:
    width = max(len(verb.name) for verb in VERBS)
    commands = "\n\n".join(
        "\n".join([f"{group}:", *(f"  {verb.name:<{width}}  {verb.summary}" for verb in VERBS if verb.group == group)])
        for group in dict.fromkeys(verb.group for verb in VERBS)
    )
    parser = Parser(
        prog="edgedistill",
        usage="edgedistill [--help] [--version] COMMAND ...",
        description="Export, quantize, verify and chat with small reasoning-distilled language models on the CPU\n"
        "you have. A bundle is the directory that an export makes: ONNX graphs, weights, tokenizer and a\n"
        f"manifest.\n\n{commands}\n\nedgedistill COMMAND --help explains a command.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"edgedistill {__version__}")
    return parser


def _find_verb(name: str) -> Verb:
    for verb in VERBS:
        if verb.name == name:
            return verb
    near = nearest(name, [verb.name for verb in VERBS])
    raise UsageError(
        f"There is no command {name!r}.",
        hint=f"Did you mean: edgedistill {near}" if near else "See: edgedistill --help",
    )


def load_verb(name: str) -> VerbModule:
    """Import the module of a verb."""
    return cast("VerbModule", importlib.import_module(f"edgedistill.cli.{name}"))
