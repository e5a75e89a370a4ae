"""``edgedistill audit``: one model alone; what is behind "100 % self-consistency, 0.00 bits"?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.cli import console, suite_reading, verification
from edgedistill.cli.bundle_options import MODEL_HELP, add_limits, bundle_path

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
It reports the bound that so many samples support, whether answers depend on the question (collapse), whether a
paraphrase keeps the answer and a changed number changes it, and whether the entropy rises with the temperature.

examples:
  edgedistill audit my-bundle
  edgedistill audit my-bundle --samples 512 --prompts 30 --temperature 1.0 --html audit.html
  edgedistill audit my-bundle --suite open-ended

exit codes: 0 consistent-correct or diffuse, 1 collapsed, partly-collapsed or consistent-wrong, 3 no certain verdict,
2 bad input"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``audit``."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help=MODEL_HELP)
    verification.add_procedures(parser)
    verification.add_sampling(parser)
    verification.add_outputs(parser)
    add_limits(parser)


def run(args: argparse.Namespace) -> int:
    """Audit and report."""
    from edgedistill.verbs import audit
    from edgedistill.verify.options import AuditOptions

    options = verification.options(args, AuditOptions)
    verification.check_outputs(args)
    bundle = bundle_path(args.bundle)
    with verification.cluster(args) as cluster, console.progress() as progress:
        report = audit(
            bundle,
            suite=suite_reading.suite(args),
            options=options,
            store=verification.store(args),
            progress=progress,
            cluster=cluster,
        )
    verification.deliver(report, args)
    return report.exit_code
