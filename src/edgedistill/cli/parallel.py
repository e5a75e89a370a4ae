"""What ``run`` and ``chat`` share for parallel reasoning: options, the run itself, its answer and its record."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.cli import console, generation, trajectory_lines
from edgedistill.errors import OutOfMemoryError, UsageError

if TYPE_CHECKING:
    import argparse
    import threading

    from edgedistill.runtime.model import Model
    from edgedistill.runtime.settings import GenerationSettings
    from edgedistill.trajectories.options import TrajectoryOptions
    from edgedistill.trajectories.result import Trajectory, TrajectoryResult

DEFAULT_COUNT = 8


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of parallel reasoning; any of them switches it on."""
    group = parser.add_argument_group(
        "parallel reasoning", f"Any of these decodes several trajectories together, {DEFAULT_COUNT} by default."
    )
    group.add_argument("--trajectories", type=int, metavar="K", help="decode K of them together and let them vote")
    group.add_argument(
        "--vote",
        choices=("majority", "confidence", "universal"),
        help="majority (default); confidence: weighted by the model's confidence; universal: the model picks the "
        "most consistent reply, as it always does where replies have no comparable answer",
    )
    group.add_argument(
        "--procedure",
        choices=("single", "vote", "deliberate"),
        help="vote (default); deliberate: one more pass reads the trajectories and answers; single: one trajectory",
    )
    group.add_argument("--deliberation-prompt", type=Path, metavar="FILE", help="Jinja file instead of the shipped one")
    group.add_argument(
        "--early-stop",
        choices=("exact", "sequential", "off"),
        help="exact (default for a plain majority): stop once the remaining trajectories cannot change the vote; "
        "sequential: once they are unlikely to; off: never",
    )
    group.add_argument(
        "--error-rate", type=float, metavar="P", help="error rate of --early-stop sequential (default 0.05)"
    )
    group.add_argument(
        "--answers",
        choices=("auto", "boxed", "hash", "phrase", "number", "choice", "text", "free"),
        help="where the answer of a reply is looked for (default auto); free: the reply itself is the answer",
    )
    group.add_argument(
        "--confidence",
        choices=("tail", "lowest", "mean"),
        help="confidence of a trajectory: over its last tokens (tail, default), its least confident tokens in a "
        "row (lowest), or all (mean)",
    )
    group.add_argument(
        "--keep",
        type=float,
        metavar="SHARE",
        help="share of the voters, most confident first, that a confidence vote counts (default 0.9)",
    )


def options(args: argparse.Namespace) -> TrajectoryOptions | None:
    """The options of the command line; None where none was given. Raises UsageError."""
    given: dict[str, Any] = {
        "count": 1 if args.procedure == "single" and args.trajectories is None else args.trajectories,
        "vote": args.vote,
        "deliberate": args.procedure == "deliberate" or None,
        "early_stop": args.early_stop,
        "error_rate": args.error_rate,
        "answers": args.answers,
        "measure": args.confidence,
        "keep": args.keep,
        "prompt": args.deliberation_prompt,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if args.procedure == "single" and given != {"count": 1}:
        raise UsageError(
            "--procedure single decodes one reply, so options of parallel reasoning have no effect.",
            hint="Drop them, or name another procedure.",
        )
    if (not given and args.procedure is None) or args.procedure == "single":
        return None
    if args.think_budget:
        raise UsageError(
            "--think-budget bounds one reply; trajectories have --max-new-tokens.", hint="Drop one of the two."
        )
    from edgedistill.trajectories.options import TrajectoryOptions

    return TrajectoryOptions(**given)


def overrides(chosen: TrajectoryOptions) -> dict[str, Any]:
    """The options as a session of the terminal UI keeps them: the count, and what differs from the defaults."""
    values = {f.name: getattr(chosen, f.name) for f in fields(chosen) if getattr(chosen, f.name) != f.default}
    values.pop("count", None)
    if chosen.prompt is not None:
        values["prompt"] = str(chosen.prompt.absolute())
    return {"trajectories": chosen.count, "parallel": values}


def settings(args: argparse.Namespace, defaults: dict[str, Any]) -> GenerationSettings:
    """Sampling settings; where the bundle is greedy by itself, a temperature that leaves a choice."""
    from edgedistill.trajectories.options import DEFAULT_TEMPERATURE

    chosen = generation.settings(args, defaults)
    if chosen.greedy and args.temperature is None:
        console.note(
            f"note: the bundle decodes greedily; its trajectories are drawn at temperature {DEFAULT_TEMPERATURE}."
        )
        return chosen.replace(temperature=DEFAULT_TEMPERATURE)
    return chosen


def solve(
    model: Model,
    prompt: str | list[dict[str, Any]],
    args: argparse.Namespace,
    chosen: TrajectoryOptions,
    *,
    cancel: threading.Event,
    raw: bool = False,
    show_all: bool = False,
    quiet: bool = False,
) -> tuple[TrajectoryResult, OutOfMemoryError | None]:
    """Run with the options of ``args``, telling on stderr how far it is.

    Returns:
        The result, and the error that the run ended with if the memory ran out on the way.
    """
    from edgedistill.trajectories.run import stream

    result: TrajectoryResult | None = None
    events = stream(
        model,
        prompt,
        options=chosen,
        settings=settings(args, model.bundle.generation),
        numerics=args.numerics,
        thinking=generation.thinking(args),
        raw=raw,
        cancel=cancel,
    )
    with trajectory_lines.status(quiet=quiet) as status:
        try:
            for event in events:
                status.take(event, show_all=show_all)
                result = event.result or result
        except OutOfMemoryError as error:
            if result is None:
                raise
            return result, error
    if result is None:
        raise RuntimeError("a run ended without its last event")
    return result, None


def print_answer(result: TrajectoryResult, *, show_reasoning: bool) -> None:
    """The text that stands, on stdout; nothing where no trajectory won."""
    if not result.answer:
        return
    printer = generation.AnswerPrinter(show_reasoning=show_reasoning)
    if result.reasoning:
        printer.write("reasoning", result.reasoning)
    printer.write("answer", result.answer)
    printer.finish()


def record(trajectory: Trajectory) -> dict[str, Any]:
    """A trajectory as a saved conversation keeps it."""
    names = ("index", "kind", "vote", "text", "confidence")
    return {**{name: getattr(trajectory, name) for name in names}, "tokens": len(trajectory.tokens)}
