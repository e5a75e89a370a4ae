"""What ``verify``, ``audit``, ``baseline`` and ``report`` share: sampling options, where reports go, the summary."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
import textwrap
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from edgedistill.atomic_file import try_to_write, write_whole
from edgedistill.cli import console, generation, suite_reading
from edgedistill.errors import OutputError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from edgedistill.verify.cluster.client import Cluster
    from edgedistill.verify.options import AuditOptions
    from edgedistill.verify.report.model import VerifyReport

Options = TypeVar("Options", bound="AuditOptions")
COLOURS = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
REPORT_NAMES = {"json": "report.json", "html": "report.html", "junit": "report.junit.xml", "markdown": "report.md"}


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """What is asked, and how replies are drawn."""
    group = parser.add_argument_group("what is asked")
    group.add_argument("--suite", default="arithmetic", metavar="S", help=suite_reading.SUITE_HELP)
    size = group.add_mutually_exclusive_group()
    size.add_argument("--fast", dest="preset", action="store_const", const="fast", help="a couple of minutes on a "
                      "small model: fewer prompts and samples, only the reference's tokens are scored")  # fmt: skip
    size.add_argument("--thorough", dest="preset", action="store_const", const="thorough", help="the whole suite, more "
                      "samples, every divergence")  # fmt: skip
    group.add_argument("--samples", type=int, metavar="N", help="replies per prompt")
    group.add_argument("--prompts", type=int, metavar="P", help="number of prompts, spread over the suite")
    suite_reading.add_reading(parser)
    sampling = parser.add_argument_group("sampling (defaults come with the suite and the bundle)")
    generation.add_sampling(sampling)
    generation.add_thinking(sampling)
    sampling.add_argument(
        "--numerics",
        choices=("fast", "exact"),
        help="fast (default): the numerical path of deployment; exact: bit-identical to prefill, slower",
    )
    stored = parser.add_argument_group("samples on disk")
    stored.add_argument(
        "--store",
        type=Path,
        metavar="DIR",
        help="directory for samples (default: the user's cache); an interrupted run continues from it",
    )
    stored.add_argument("--no-store", action="store_true", help="keep samples in memory only")
    spread = parser.add_argument_group("several machines (extra: cluster)")
    spread.add_argument(
        "--dask",
        metavar="ADDRESS",
        help="draw samples on the workers of a Dask cluster, the same as here: tcp://HOST:PORT or a scheduler file",
    )
    spread.add_argument(
        "--dask-bundle",
        metavar="PATH",
        help="path of the bundle on the workers (default: it is sent to workers that lack it)",
    )
    spread.add_argument(
        "--compare-devices",
        action="store_true",
        help="compare the replies of every worker with those of this machine (default: one worker of each kind)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Where PyTorch computes."""
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), default="cpu", help="where PyTorch runs a model hf "
                        "or hf:NAME, with batches as large as its memory allows (default cpu)")  # fmt: skip


def add_procedures(parser: argparse.ArgumentParser) -> None:
    """What an answer is."""
    group = parser.add_argument_group("how answers are produced (default: single replies, drawn in large batches)")
    group.add_argument("--procedure", choices=("single", "vote", "deliberate"), help="score "
                       "answers, one question at a time as in use: one reply, the vote of K trajectories, or the pass "
                       "that reads them")  # fmt: skip
    group.add_argument(
        "--trajectories", type=int, metavar="K", help="number of trajectories for vote and deliberate (default 8)"
    )
    group.add_argument(
        "--vote", choices=("majority", "confidence", "universal"), help="how trajectories vote (default majority)"
    )
    parser.add_argument("--second-opinion", action="store_true", help="also show consistency with answers merged that "
                        "mean the same to math-verify (extra: math)")  # fmt: skip


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """Where reports go."""
    group = parser.add_argument_group("reports")
    group.add_argument("-o", "--out", type=Path, metavar="DIR", help=f"write {', '.join(REPORT_NAMES.values())} there")
    group.add_argument("--json", action="store_true", help="print the report as JSON")
    group.add_argument("--html", type=Path, metavar="FILE", help="one page with plots that opens without network")
    group.add_argument("--junit", type=Path, metavar="FILE", help="JUnit XML, a test case per endpoint")
    group.add_argument("--github", action="store_true", help="job summary and annotations of GitHub Actions")


def options(args: argparse.Namespace, kind: type[Options], **more: Any) -> Options:
    """The options of the command line; raises UsageError where they make no sense."""
    given = {f.name: getattr(args, f.name) for f in dataclasses.fields(kind) if hasattr(args, f.name)}
    given |= {"preset": args.preset or "default", "thinking": args.think, **more}
    chosen = kind(**given)
    if chosen.scored is not None and args.dask is not None:
        raise UsageError("Answers of a procedure are computed on one machine.", hint="Drop --dask or --procedure.")
    return chosen


def store(args: argparse.Namespace) -> Path | None:
    """The directory of samples; None for ``--no-store``."""
    if args.no_store:
        if args.store is not None:
            raise UsageError("--store and --no-store exclude each other.", hint="Drop one of the two.")
        return None
    if args.store is not None:
        return Path(args.store)
    import platformdirs

    return platformdirs.user_cache_path("edgedistill") / "samples"


@contextmanager
def cluster(args: argparse.Namespace) -> Iterator[Cluster | None]:
    """The cluster of ``--dask``; None without."""
    if args.dask is None:
        if args.dask_bundle is not None or args.compare_devices:
            name = "--dask-bundle" if args.dask_bundle is not None else "--compare-devices"
            raise UsageError(f"{name} needs a cluster.", hint="Name its scheduler with --dask ADDRESS.")
        yield None
        return
    from edgedistill.verify.cluster.client import Cluster

    with Cluster.connect(args.dask, bundle_path=args.dask_bundle, compare=args.compare_devices) as found:
        yield found


def check_outputs(args: argparse.Namespace) -> None:
    """Raises OutputError for a report that could not be written: before hours of sampling, not after."""
    if args.out is not None:
        try:
            args.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"{args.out} cannot be made: {error.strerror}.", hint="Choose another directory with --out."
            ) from error
        require_writable(args.out / REPORT_NAMES["json"], "Choose another directory with --out.")
    for name, path in (("--html", args.html), ("--junit", args.junit)):
        if path is None:
            continue
        if path.is_dir():
            raise OutputError(f"{name} {path} is a directory; expected a file.")
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise OutputError(
                f"{name} {path} cannot be written: {path.parent} is not a writable directory.",
                hint=f"Try: mkdir -p {path.parent}",
            )
        require_writable(path, f"Choose another {name}.")
    if args.github and (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
        _append(Path(summary), "")


def require_writable(path: Path, hint: str) -> None:
    """Raises OutputError unless a file can be made at ``path``, tried with one beside it; makes its directory."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try_to_write(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.", hint=hint) from error


def deliver(report: VerifyReport, args: argparse.Namespace) -> None:
    """Write and print the report in every form that was asked for."""
    from edgedistill.verify.report.ci import job_summary, junit
    from edgedistill.verify.report.html import html
    from edgedistill.verify.report.model import report_json

    # ``report`` draws no samples and has no store.
    kept = None if getattr(args, "no_store", True) else "The samples are kept: run the same command again."
    files: dict[Path, str] = {}
    if args.out is not None:
        files[args.out / REPORT_NAMES["json"]] = report_json(report)
        files[args.out / REPORT_NAMES["markdown"]] = job_summary(report)
    for name, path, make in (("html", args.html, html), ("junit", args.junit, junit)):
        targets = [path, None if args.out is None else args.out / REPORT_NAMES[name]]
        files |= {target: make(report) for target in targets if target is not None}
    for path, text in files.items():
        write(path, text, hint=kept)
    if args.github:
        _github(report, to_stderr=args.json)
    if args.json:
        console.out_json_text(report_json(report))
        return
    print_summary(report)
    for path in files:
        console.note(f"written: {path}")


def write(path: Path, text: str, *, hint: str | None = None) -> None:
    """Write a file in one go. Raises OutputError, with what to do next."""
    try:
        write_whole(path, text, errors="replace")
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror}.", hint=hint) from error


def _github(report: VerifyReport, *, to_stderr: bool) -> None:
    from edgedistill.verify.report.ci import annotate, job_summary

    for line in annotate(report):
        console.command(line, stream=sys.stderr if to_stderr else None)
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if not path:
        console.note("note: GITHUB_STEP_SUMMARY is not set, so there is no job summary.")
        return
    _append(Path(path), job_summary(report))


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8", errors="replace") as stream:
            stream.write(text)
    except OSError as error:
        raise OutputError(
            f"The job summary {path} cannot be written: {error.strerror}.",
            hint="GITHUB_STEP_SUMMARY names it; unset it, or leave out --github.",
        ) from error


def print_summary(report: VerifyReport) -> None:
    """The report as text: outcome, reasons, tables."""
    from edgedistill.verify.report import tables as rows
    from edgedistill.verify.report.gate_text import samplers_text
    from edgedistill.verify.report.prompt_tables import LOST_HEADERS, LOST_TITLE, lost_rows, lost_text

    against = f" against {report.reference.name}" if report.reference is not None else ""
    outcome = {0: "pass", 1: "fail"}.get(report.exit_code, "inconclusive")
    word = console.style(rows.headline(report), COLOURS[outcome])
    console.out(f"{word}  {report.bundle.name}{against}, suite {report.suite.name}")
    for identity in (report.bundle, report.reference):
        if identity is not None and identity.sha256:
            console.out(f"{identity.sha256}  {identity.name}")
    console.out()
    for difference in report.shipped:
        paragraph(console.style(difference.sentence, "yellow"))
    paragraph(report.claim)
    verdict = report.bundle_result.verdict
    paragraph(report.bundle_result.verdict_reason if verdict is None else verdict.reason)
    if report.gate is not None:
        console.out()
        console.out(console.table(rows.ENDPOINT_HEADERS, rows.endpoint_rows(report)))
        console.out()
        for reason in report.gate.reasons:
            paragraph(f"- {reason}")
        paragraph(report.gate.power)
        if report.gate.decide:
            paragraph(f"What would decide it: {report.gate.decide}")
    if report.lost_most:
        console.out()
        console.out(f"{LOST_TITLE}:")
        console.out(console.table(LOST_HEADERS, lost_rows(report)))
        paragraph(lost_text(report))
    console.out()
    metrics = rows.metric_rows(report)
    if report.reference_result is None:
        console.out(console.table(("metric", "bundle"), [(row.label, row.bundle) for row in metrics]))
    else:
        lines = [(row.label, row.reference, row.bundle) for row in metrics]
        console.out(console.table(("metric", "reference", "bundle"), lines))
    console.out()
    size = f"{report.suite.prompts} prompts, {report.settings.samples} samples each; {rows.settings_text(report)}."
    paragraph(f"{size} {rows.path_text(report)} {samplers_text(report)}".rstrip())
    if report.bundle_extras.sweep is not None:
        paragraph(report.bundle_extras.sweep.sentence)
    for note in report.notes:
        paragraph(note)


def paragraph(text: str) -> None:
    """A paragraph, broken at the width of a terminal; one line in a pipe."""
    if not text:
        return
    if sys.stdout.isatty():
        text = console.lines(textwrap.fill(text, max(40, min(110, shutil.get_terminal_size().columns))))
    console.out(text)


def printable(text: str | None) -> str:
    """A model's answer without anything that a terminal would obey; a dash for None."""
    if text is None:
        return "-"
    cut = text if len(text) <= 40 else text[:39] + "…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cut)
