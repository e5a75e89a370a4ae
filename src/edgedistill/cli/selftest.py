"""``edgedistill selftest``: which numerical properties hold on this machine, and how far the decode paths are apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.cli.bundle_options import MODEL_HELP, add_limits, bundle_path
from edgedistill.errors import EXIT_FAIL

if TYPE_CHECKING:
    import argparse

    from edgedistill.runtime.measure.selftest import PropertyCheck, SelfTestResult

EXAMPLES = """\
examples:
  edgedistill selftest my-bundle
  edgedistill selftest my-bundle --threads 1 --json

Exit code 1: a property that exact numerics or batches rely on does not hold here."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``selftest``."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help=MODEL_HELP)
    parser.add_argument("--threads", type=int, metavar="N", help="threads (default: the bundle's profile)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    add_limits(parser)


def run(args: argparse.Namespace) -> int:
    """Check and print; exit code 1 if a required property does not hold."""
    from edgedistill.runtime.measure.selftest import selftest

    bundle = bundle_path(args.bundle)
    with console.progress() as progress:
        result = selftest(bundle, threads=args.threads, progress=progress)
    if args.json:
        console.out_json(result.to_dict())
    else:
        _print(result)
    return 0 if result.passed else EXIT_FAIL


def _print(result: SelfTestResult) -> None:
    console.out(f"{result.bundle}, {result.threads} thread(s), a text of {result.tokens} tokens, compared bit for bit")
    console.out()
    rows = [
        (c.name, _verdict(c), "required" if c.required else "", f"{c.max_difference:.2g}", c.detail)
        for c in result.checks
    ]
    console.out(console.table(("property", "holds", "", "largest difference", "how"), rows, right=(3,), wrap=4))
    console.out()
    rows = [
        (d.name, f"{d.mean_kl:.2e}", f"{d.p99_kl:.2e}", f"{d.max_kl:.2e}", f"{100 * d.top1_agreement:.1f} %")
        for d in result.divergences
    ]
    headers = ("divergence (nats per token)", "mean", "99th percentile", "largest", "same top token")
    console.out(console.table(headers, rows, right=(1, 2, 3, 4)))
    console.out()
    if result.passed:
        text = "Everything that exact numerics and batches rely on holds on this machine."
        console.out(console.style(text, "green"))
    else:
        failed = ", ".join(c.name for c in result.checks if c.required and c.held is False)
        console.out(console.style(f"Does not hold on this machine, though exact numerics rely on it: {failed}.", "red"))


def _verdict(check: PropertyCheck) -> str:
    return "not checked" if check.held is None else "yes" if check.held else "no"
