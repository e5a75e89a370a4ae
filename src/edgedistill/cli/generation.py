"""What ``run`` and ``chat`` share: sampling options, Ctrl-C as a polite stop, printing an answer as it comes."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from edgedistill.bounded_file import read_bounded
from edgedistill.cli import console
from edgedistill.cli.bundle_options import add_trusted_key, bundle_path
from edgedistill.errors import UsageError
from edgedistill.units import format_bytes, format_rate, format_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from edgedistill.bundle.bundle import Check
    from edgedistill.runtime.events import Event, Generation
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.settings import GenerationSettings
    from edgedistill.runtime.stats import GenerationStats
    from edgedistill.runtime.tools.types import Tool


DRAFT_HELP = (
    "a smaller bundle with the same tokenizer, which guesses tokens where that is faster; every token stays the "
    "model's own"
)


class Form(TypedDict, total=False):
    """Keywords of ``Model.generate`` for the form of an answer."""

    json_schema: Any
    grammar: str
    regex: str
    choices: list[str]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of everything that generates; None means the bundle's own default."""
    sampling = parser.add_argument_group("sampling (defaults come with the bundle)")
    add_sampling(sampling)
    sampling.add_argument(
        "--repetition-penalty", type=float, metavar="R", help="above 1: tokens seen before are less likely (1: off)"
    )
    sampling.add_argument("--stop", action="append", metavar="TEXT", help="end before this text (repeatable)")
    running = parser.add_argument_group("running")
    running.add_argument("--system", metavar="TEXT", help="system prompt")
    add_thinking(running)
    running.add_argument(
        "--think-budget",
        type=int,
        default=0,
        metavar="N",
        help="tokens of reasoning, then it has to answer (0: no limit)",
    )
    running.add_argument(
        "--reasoning-effort",
        choices=("none", "minimal", "low", "medium", "high"),
        help="by the template's own switch, or 10, 20, 50, 80 %% of --max-new-tokens as the budget",
    )
    running.add_argument(
        "--template-var",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="variable of the chat template, such as reasoning_effort=low; VALUE is JSON or text (repeatable)",
    )
    running.add_argument(
        "--numerics",
        choices=("fast", "exact"),
        default="fast",
        help="fast: one token a step; exact: bit-identical to prefill, slower",
    )
    running.add_argument(
        "--speculate",
        type=_speculate,
        metavar="auto|off|identical|N",
        help="guess tokens from the text so far and compute several in one run where that is faster; N: at most N in a "
        "run; identical (default): only where it cannot change a token, which is with --numerics exact",
    )
    running.add_argument("--draft", type=Path, metavar="BUNDLE", help=DRAFT_HELP)
    running.add_argument(
        "--reasoning-tags",
        nargs=2,
        metavar=("OPEN", "CLOSE"),
        help="what opens and closes reasoning, instead of the marks that the bundle knows",
    )
    running.add_argument(
        "--prompt-cache",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="keep keys and values of prompts and replies on disk, so that another run with the same beginning "
        "computes new tokens only (default: off; empty it with: edgedistill cache clear --prompts)",
    )
    running.add_argument("--threads", type=int, metavar="N", help="threads (default: the bundle's profile)")
    running.add_argument("--verify", action="store_true", help="compare the bundle's SHA-256 sums first")
    add_trusted_key(running)


def add_sampling(group: argparse._ArgumentGroup) -> None:
    """What is sampled by, wherever replies are drawn."""
    group.add_argument("--temperature", type=float, metavar="T", help="0 takes the most likely token")
    group.add_argument("--top-k", type=int, metavar="K", help="keep the K most likely tokens; 0 keeps all")
    group.add_argument("--top-p", type=float, metavar="P", help="keep the most likely tokens up to this sum")
    group.add_argument(
        "--min-p", type=float, metavar="P", help="drop tokens less likely than this share of the most likely one"
    )
    group.add_argument("--seed", type=int, metavar="N", help="make sampling repeatable")
    group.add_argument("-n", "--max-new-tokens", type=int, metavar="N", help="longest reply, reasoning included")


def add_thinking(group: argparse._ArgumentGroup) -> None:
    """``--think`` and ``--no-think``; ``args.think`` is None without either."""
    either = group.add_mutually_exclusive_group()
    either.add_argument("--think", action="store_true", default=None, help="have the model reason before it answers")
    either.add_argument("--no-think", dest="think", action="store_false", help="have it answer at once")


def open_model(args: argparse.Namespace, *, prompt_cache: bool = False) -> Model:
    """The bundle of ``args``, opened with its options. Raises BundleError, BudgetError, UsageError."""
    from edgedistill.runtime.model import open_bundle

    check: Check = "full" if args.verify else "size"
    return open_bundle(
        args.bundle, threads=args.threads, check=check, reasoning_tags=args.reasoning_tags,
        template_vars=template_vars(args), prompt_cache=prompt_cache, draft=draft_path(args),
    )  # fmt: skip


def draft_path(args: argparse.Namespace) -> Path | None:
    """The bundle of ``--draft``, if it is given; a model by name is exported. Raises BundleError."""
    return None if args.draft is None else bundle_path(args.draft)


def template_vars(args: argparse.Namespace) -> dict[str, Any]:
    """The variables of ``--template-var``; raises UsageError."""
    found: dict[str, Any] = {}
    for given in args.template_var:
        name, equals, text = given.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(
                f"--template-var is {given!r}; expected NAME=VALUE.", hint="As in: --template-var reasoning_effort=low"
            )
        try:
            found[name] = json.loads(text)
        except (ValueError, RecursionError):
            found[name] = text
    return found


def settings(args: argparse.Namespace, defaults: dict[str, Any]) -> GenerationSettings:
    """The bundle's ``defaults`` with the options that were given on top."""
    from edgedistill.runtime.settings import GenerationSettings

    return GenerationSettings.from_defaults(
        defaults,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        min_p=args.min_p,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
        stop=tuple(args.stop) if args.stop else None,
        max_new_tokens=args.max_new_tokens,
        speculate="auto" if args.speculate is None and args.draft is not None else args.speculate,
    )


SAMPLING = (
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop", "max_new_tokens", "speculate",
)  # fmt: skip
"""Options that change a bundle's settings; None leaves one as it is."""


def _speculate(text: str) -> str | int:
    """A number, or a word that ``GenerationSettings`` looks at."""
    return int(text) if text.isascii() and text.isdigit() else text


def thinking(args: argparse.Namespace) -> bool | None:
    """True for ``--think``, False for ``--no-think``; None leaves it to the chat template."""
    value: bool | None = args.think
    return value


def add_form_options(parser: argparse.ArgumentParser) -> None:
    """Options of the form of an answer."""
    group = parser.add_argument_group("form of the answer").add_mutually_exclusive_group()
    group.add_argument("--json-schema", type=Path, metavar="FILE", help="JSON that fits the schema in this file")
    group.add_argument("--grammar", type=Path, metavar="FILE", help="a text of this grammar (Lark or GBNF)")
    group.add_argument("--regex", metavar="REGEX", help="a text that this regular expression matches")
    group.add_argument("--choices", metavar="A,B", help="one of these texts")


_LARGEST_FORM = 16 << 20


def form(args: argparse.Namespace) -> Form:
    """The keywords of the form that ``args`` ask for; raises UsageError for a file that cannot be read."""
    found: Form = {}
    if getattr(args, "json_schema", None) is not None:
        try:
            found["json_schema"] = json.loads(_read(args.json_schema, "--json-schema"))
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{args.json_schema} is not JSON: {error}.", hint="Give a JSON schema.") from error
    if getattr(args, "grammar", None) is not None:
        found["grammar"] = _read(args.grammar, "--grammar")
    if getattr(args, "regex", None) is not None:
        found["regex"] = args.regex
    if getattr(args, "choices", None) is not None:
        found["choices"] = [text.strip() for text in args.choices.split(",")]
    return found


def _read(path: Path, option: str) -> str:
    try:
        data = read_bounded(path, _LARGEST_FORM)
        if len(data) <= _LARGEST_FORM:
            return data.decode("utf-8")
        why = f"it has more than {_LARGEST_FORM >> 20} MiB"
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
    raise UsageError(f"{option} cannot read {path}: {why}.")


@contextmanager
def cancel_on_interrupt() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets, so that the text so far is kept; the second one interrupts as usual."""
    cancel = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        if cancel.is_set():
            raise KeyboardInterrupt
        cancel.set()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield cancel
    finally:
        signal.signal(signal.SIGINT, before)


class AnswerPrinter:
    """Writes segments to stdout as they come: reasoning dim, answer bold.

    Without colour the reasoning stands between ``<think>`` lines, so that the two can be told apart in a pipe.

    Args:
        show_reasoning: False leaves the reasoning out.
    """

    def __init__(self, *, show_reasoning: bool = True) -> None:
        self._show = show_reasoning
        self._colour = console.has_colour(sys.stdout)
        self._kind = ""
        self._held: str | None = None

    def write(self, kind: str, text: str) -> None:
        """Print a segment; ``kind`` is reasoning or answer. White space around either as a whole is dropped."""
        if kind == "reasoning" and not self._show:
            return
        if kind != self._kind:
            self._leave(kind)
            self._kind, self._held = kind, None
            if kind == "reasoning" and not self._colour:
                self._put("<think>\n")
        text = text.lstrip() if self._held is None else self._held + text
        if not text.strip():
            # White space waits for text that follows it.
            self._held = text if self._held is not None else None
            return
        shown = text.rstrip()
        self._held = text[len(shown) :]
        self._put(console.style(shown, "dim" if kind == "reasoning" else "bold"))

    def finish(self) -> None:
        """End the last line."""
        self._leave("")
        self._kind = ""

    def _leave(self, following: str) -> None:
        if not self._kind:
            return
        self._put("\n")
        if self._kind == "reasoning" and not self._colour:
            self._put("</think>\n")
        if following:
            self._put("\n")

    @staticmethod
    def _put(text: str) -> None:
        console.write(text)


def generate(
    model: Model,
    prompt: str | list[dict[str, Any]],
    args: argparse.Namespace,
    *,
    printer: AnswerPrinter | None,
    cancel: threading.Event,
    raw: bool = False,
    tools: Sequence[Tool] = (),
    tool_choice: str | dict[str, Any] = "auto",
) -> Generation:
    """Generate with the options of ``args``; ``printer`` gets the text as it comes."""

    def show(event: Event) -> None:
        if printer is not None and event.kind in ("reasoning", "answer"):
            printer.write(event.kind, event.text)

    try:
        result = model.generate(
            prompt,
            settings=settings(args, model.bundle.generation),
            numerics=args.numerics,
            thinking=thinking(args),
            think_budget=args.think_budget,
            reasoning_effort=args.reasoning_effort,
            raw=raw,
            tools=tools,
            tool_choice=tool_choice if tools else None,
            **form(args),
            on_event=show,
            cancel=cancel,
        )
    finally:
        if printer is not None:
            printer.finish()
    if result.note:
        console.note(f"note: {result.note}")
    return result


def stats_line(stats: GenerationStats, finish_reason: str) -> str:
    """One line of statistics."""
    reasoning = f" ({stats.reasoning_tokens} reasoning)" if stats.reasoning_tokens else ""
    parts = [
        f"{stats.prompt_tokens} tokens in, {stats.new_tokens} out{reasoning}",
        f"first token {format_seconds(stats.ttft_s)}",
        f"prefill {format_rate(stats.prefill_tps)}",
        f"decode {format_rate(stats.decode_tps)}",
        f"p95 {format_seconds(stats.step_p95_s)}",
        *([f"{stats.accepted_tokens} of {stats.drafted_tokens} guesses right"] if stats.drafted_tokens else []),
        f"KV {format_bytes(stats.kv_bytes)}",
        f"memory {format_bytes(stats.peak_rss_bytes)}",
    ]
    if stats.seed is not None:
        parts.append(f"seed {stats.seed}")
    return " | ".join([*parts, finish_reason])
