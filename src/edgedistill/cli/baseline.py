"""``edgedistill baseline``: samples of a reference in a file, so that a gate needs no reference at hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.cli import console, suite_reading, verification
from edgedistill.cli.bundle_options import add_limits
from edgedistill.errors import UsageError
from edgedistill.units import format_bytes, format_count

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
examples:
  edgedistill baseline create my-fp32-bundle -o tiny.baseline
  edgedistill baseline create hf:./my-student -o student.baseline --suite questions.jsonl --samples 64
  edgedistill baseline show tiny.baseline
  edgedistill baseline check tiny.baseline --bundle my-bundle"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser("create", help="draw samples of a reference and store them", allow_abbrev=False)
    create.add_argument("model", metavar="REFERENCE", help="an fp32 bundle, hf:NAME-OR-DIRECTORY "
                        "(extra: torch), or http://HOST:PORT/v1 (extra: endpoint)")  # fmt: skip
    create.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="file to write")
    create.add_argument("--force", action="store_true", help="replace an existing file")
    create.add_argument("--scored-samples", type=int, metavar="N", default=4,
                        help="replies per prompt whose token probabilities are stored (4)")  # fmt: skip
    create.add_argument("--json", action="store_true", help="print the summary as JSON")
    verification.add_device(create)
    verification.add_sampling(create)
    add_limits(create)
    show = actions.add_parser("show", help="print what a baseline is", allow_abbrev=False)
    show.add_argument("file", type=Path, metavar="FILE", help="a baseline")
    show.add_argument("--json", action="store_true", help="print it as JSON")
    check = actions.add_parser("check", help="check that a baseline is intact and fits", allow_abbrev=False)
    check.add_argument("file", type=Path, metavar="FILE", help="a baseline")
    check.add_argument("--bundle", type=Path, metavar="BUNDLE", help="check that the baseline fits this bundle")
    check.add_argument("--suite", metavar="S", help="check that the baseline fits this suite")
    suite_reading.add_reading(check)


def run(args: argparse.Namespace) -> int:
    """Run one action."""
    return {"create": _create, "show": _show, "check": _check}[args.action](args)


def _create(args: argparse.Namespace) -> int:
    if args.model == "hf":
        raise UsageError(
            "hf alone means the original of a bundle, and no bundle is given; expected hf:NAME-OR-DIRECTORY."
        )
    if args.out.is_dir():
        raise UsageError(f"{args.out} is a directory; expected a file.", hint=f"Try: -o {args.out}/NAME.baseline")
    if args.out.exists() and not args.force:
        raise UsageError(f"{args.out} already exists.", hint="Name another file, or replace it with --force.")
    if args.scored_samples < 0:
        raise UsageError(f"--scored-samples is {args.scored_samples}; expected a whole number from 0.")
    from edgedistill.verify.options import AuditOptions

    options = verification.options(args, AuditOptions)
    verification.require_writable(args.out, "Choose another file with -o.")
    from edgedistill.verify.create_baseline import make_baseline
    from edgedistill.verify.suites.registry import lacking_prompts

    suite = suite_reading.suite(args)
    for note in lacking_prompts(suite, options.prompts):
        console.note(f"note: {note}")
    with verification.cluster(args) as cluster, console.progress() as progress:
        baseline = make_baseline(
            args.model,
            suite=suite,
            options=options,
            scored_samples=args.scored_samples,
            store=verification.store(args),
            progress=progress,
            cluster=cluster,
            device=args.device,
        ).save(args.out, force=args.force)
    _print(baseline.summary(), args.out, as_json=args.json)
    return 0


def _show(args: argparse.Namespace) -> int:
    from edgedistill.verify.references.baseline_file import Baseline

    _print(Baseline.load(args.file).summary(), args.file, as_json=args.json)
    return 0


def _check(args: argparse.Namespace) -> int:
    from edgedistill.verify.create_baseline import check_baseline
    from edgedistill.verify.references.baseline_file import Baseline

    baseline = Baseline.load(args.file)
    if args.suite is not None:
        baseline.check(suite=suite_reading.open_suite(args).suite)
    if args.bundle is not None:
        check_baseline(baseline, args.bundle)
    console.out(f"{args.file} is intact" + (" and fits." if args.suite or args.bundle else "."))
    return 0


def _print(summary: dict[str, Any], path: Path, *, as_json: bool) -> None:
    if as_json:
        console.out_json(summary)
        return
    model, settings = summary["model"], summary["settings"]
    pairs = [
        ("baseline", f"{path} ({format_bytes(path.stat().st_size)})"),
        ("of", f"{model['name']} ({model['kind']}, weights {model['sha256'][:12]})"),
        ("suite", f"{summary['suite']['name']} ({summary['suite']['sha256'][:12]})"),
        (
            "samples",
            f"{summary['prompts']} prompts, {summary['samples']} each, {format_count(summary['tokens'])} tokens; "
            f"probabilities of {summary['scored_samples']} replies",
        ),
        ("settings", ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)),
        ("made", f"{summary['created']}, {', '.join(f'{k} {v}' for k, v in summary['versions'].items())}"),
        ("sha256", summary["sha256"]),
    ]
    console.out(console.fields(pairs))
