"""``edgedistill completion``: a script for the shell, made from the parsers of all commands."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.cli import console

if TYPE_CHECKING:
    import argparse

SHELLS = ("bash", "zsh", "fish")
EXAMPLES = """\
examples:
  eval "$(edgedistill completion bash)"                                in ~/.bashrc
  edgedistill completion zsh > ~/.zsh/completions/_edgedistill         a directory of $fpath
  edgedistill completion fish > ~/.config/fish/completions/edgedistill.fish"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``completion``."""
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"{', '.join(SHELLS[:-1])} or {SHELLS[-1]}")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from edgedistill.cli.parser import full_parser

    parser = full_parser()
    for verb in parser.verbs():
        for one in verb.leaves():
            for action in one._actions:
                if action.type is Path:
                    paths: Any = shtab.DIRECTORY if action.metavar in ("DIR", "BUNDLE") else shtab.FILE
                    action.complete = paths  # type: ignore[attr-defined]
    console.out(console.lines(shtab.complete(parser, shell=args.shell).rstrip("\n")))
    return 0
