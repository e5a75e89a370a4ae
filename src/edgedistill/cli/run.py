"""``edgedistill run``: one prompt in, the answer streamed to stdout, statistics on stderr."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.cli import console, generation, parallel, tool_rounds, trajectory_lines
from edgedistill.cli.bundle_options import MODEL_HELP, add_limits, bundle_path
from edgedistill.errors import EXIT_FAIL, EXIT_INTERRUPTED, UsageError

if TYPE_CHECKING:
    import argparse
    import threading

    from edgedistill.runtime.model import Model
    from edgedistill.trajectories.options import TrajectoryOptions

EXAMPLES = """\
examples:
  edgedistill run my-bundle "What is 17 + 25?"
  edgedistill run tiny-reasoner "What is 17 + 25?"          a model by name, exported once
  edgedistill run my-bundle --temperature 0.7 --seed 1 "A train leaves at ..."
  edgedistill run my-bundle --json - < question.txt
  edgedistill run my-bundle --raw "Once upon a time"       no chat template
  edgedistill run my-bundle --trajectories 8 "A train ..."  eight attempts at once, a vote
  edgedistill run my-bundle --procedure deliberate "A train ..."  and a pass that reads them
  edgedistill run my-bundle --json-schema answer.json "..." JSON that fits a schema
  edgedistill run my-bundle --tools tools.py "What time is it in Rome?"   functions that it may call, if you agree
  edgedistill run my-bundle --mcp "uvx mcp-server-time" "..."   tools of an MCP server"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``run``."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help=MODEL_HELP)
    parser.add_argument("prompt", nargs="?", metavar="PROMPT", help="the question; - or nothing reads stdin")
    parser.add_argument("--raw", action="store_true", help="continue the prompt as it is, without a chat template")
    parser.add_argument("--hide-reasoning", action="store_true", help="print the answer only")
    parser.add_argument("--json", action="store_true", help="print text, reasoning, answer and statistics as JSON")
    generation.add_options(parser)
    generation.add_form_options(parser)
    tool_rounds.add_options(parser)
    add_limits(parser)
    parallel.add_options(parser)
    parser.add_argument("--show-trajectories", action="store_true", help="print every trajectory on stderr")


def run(args: argparse.Namespace) -> int:
    """Answer one prompt."""
    if args.raw and args.system:
        raise UsageError("--raw uses no chat template, so --system has no effect.", hint="Drop one of the two.")
    several = parallel.options(args)
    if args.show_trajectories and several is None:
        raise UsageError("--show-trajectories shows nothing without --trajectories.", hint="Add --trajectories 8.")
    tool_rounds.refuse_beside(several, args)
    if args.raw and tool_rounds.given(args):
        raise UsageError("--raw uses no chat template, so tools have no place.", hint="Drop one of the two.")
    text = _prompt(args.prompt)
    args.bundle = bundle_path(args.bundle)
    from edgedistill.cli.kept_files import keep_files

    prompt: str | list[dict[str, Any]] = text
    if args.system:
        prompt = [{"role": "system", "content": args.system}, {"role": "user", "content": text}]
    printer = None if args.json else generation.AnswerPrinter(show_reasoning=not args.hide_reasoning)
    with (
        tool_rounds.Toolbox(args) as box,
        generation.open_model(args, prompt_cache=args.prompt_cache) as model,
        keep_files(model.bundle),
    ):
        if several is not None:
            with generation.cancel_on_interrupt() as cancel:
                return _in_parallel(model, prompt, text, args, several, cancel)
        result, steps = tool_rounds.answer(model, prompt, args, box, printer=printer, raw=args.raw)
    if args.json:
        console.out_json({"bundle": str(args.bundle), "prompt": text, "steps": steps, **result.to_dict()})
    else:
        console.note(generation.stats_line(result.stats, result.finish_reason))
    if result.finish_reason == "cancelled":
        console.note("interrupted.")
        return EXIT_INTERRUPTED
    return 0


def _in_parallel(
    model: Model,
    prompt: str | list[dict[str, Any]],
    text: str,
    args: argparse.Namespace,
    several: TrajectoryOptions,
    cancel: threading.Event,
) -> int:
    """Several trajectories: how they fare goes to stderr, what stands in the end to stdout."""
    result, lost = parallel.solve(
        model, prompt, args, several, cancel=cancel, raw=args.raw, show_all=args.show_trajectories, quiet=args.json
    )
    if args.json:
        console.out_json({"bundle": str(args.bundle), "prompt": text, **result.to_dict()})
    else:
        parallel.print_answer(result, show_reasoning=not args.hide_reasoning)
        console.note(trajectory_lines.outcome(result))
        console.note(trajectory_lines.stats_line(result.stats))
    if lost is not None:
        raise lost
    if result.cancelled:
        console.note("interrupted; the trajectories so far are kept.")
        return EXIT_INTERRUPTED
    return EXIT_FAIL if result.decided_by == "none" else 0


def _prompt(argument: str | None) -> str:
    if argument is not None and argument != "-":
        text = argument
    elif argument == "-" or not sys.stdin.isatty():
        text = sys.stdin.buffer.read().decode("utf-8", errors="surrogateescape").rstrip("\n")
    else:
        raise UsageError("There is no prompt.", hint='Try: edgedistill run BUNDLE "What is 17 + 25?"')
    if any("\udc80" <= character <= "\udcff" for character in text):
        # What Python makes of bytes that are not UTF-8, in arguments too.
        raise UsageError("The prompt is not UTF-8 text.", hint="Convert it, for instance with: iconv -t utf-8")
    if not text.strip():
        raise UsageError("The prompt is empty.", hint='Try: edgedistill run BUNDLE "What is 17 + 25?"')
    return text
