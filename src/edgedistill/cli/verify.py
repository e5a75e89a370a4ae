"""``edgedistill verify``: a bundle against its reference, with a verdict as the exit code."""

from __future__ import annotations

import argparse
from pathlib import Path

from edgedistill.cli import console, suite_reading, verification
from edgedistill.cli.bundle_options import MODEL_HELP, add_limits, add_trusted_key, bundle_path
from edgedistill.errors import UsageError
from edgedistill.units import parse_seconds

EXAMPLES = """\
references:
  DIR                      an fp32 bundle: edgedistill export MODEL --format fp32 -o DIR
  hf                       the original that the bundle was exported from, in PyTorch (extra: torch)
  hf:NAME                  a checkpoint by name or directory, in PyTorch
  http://HOST:PORT/v1      an OpenAI-compatible server, such as vLLM or llama.cpp; #NAME behind it chooses a model,
                           $OPENAI_API_KEY holds a key (extra: endpoint)
  FILE.baseline            samples of a reference, made with: edgedistill baseline create

examples:
  edgedistill verify my-bundle --reference my-fp32-bundle
  edgedistill verify my-bundle --baseline tiny.baseline --fast --github
  edgedistill verify my-bundle --reference my-fp32-bundle --time-budget 20m
  edgedistill verify my-bundle --reference hf --suite questions.jsonl --samples 64 --out reports
  edgedistill verify http://localhost:8080/v1 --baseline tiny.baseline
  edgedistill verify my-bundle --reference my-fp32-bundle --margin accuracy=0.05 --margin agreement=0.1
  edgedistill verify my-bundle --reference my-fp32-bundle --procedure vote --trajectories 8

exit codes: 0 pass, 1 fail, 3 inconclusive, 2 bad input"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify``."""
    parser.add_argument("bundle", type=_bundle, metavar="BUNDLE",
                        help=f"{MODEL_HELP}, or the address of an OpenAI-compatible server")  # fmt: skip
    parser.add_argument("--reference", metavar="REF", help="reference to compare with (see references below)")
    parser.add_argument(
        "--baseline",
        type=Path,
        metavar="FILE",
        help="reference samples stored earlier; all are used unless --fast, --prompts or --samples asks for fewer",
    )
    parser.add_argument("--margin", action="append", default=[], metavar="NAME=VALUE", help="instead of the profile's: "
                        "accuracy, distance, agreement, entropy_bits, length_ratio, shorter_ratio, truncation "
                        "(repeatable)")  # fmt: skip
    parser.add_argument("--estimand", choices=("suite", "population"), help="what the verdict is about: these prompts, "
                        "where only the noise of sampling counts (default), or prompts like these")  # fmt: skip
    parser.add_argument(
        "--sequential", action="store_true", help="stop as soon as the evidence decides (about prompts like these)"
    )
    parser.add_argument("--time-budget", type=_duration, metavar="T", help="20m, 1h30m: a pilot of a few replies "
                        "chooses prompts, samples and, if need be, shorter replies; the run ends by then, with what "
                        "was decided")  # fmt: skip
    parser.add_argument("--screen", action=argparse.BooleanOptionalAction, default=None, help="first compare the "
                        "answers that the bundle gives to the reference's reasoning, and stop where these fail "
                        "(default: where it is a small part of the run)")  # fmt: skip
    parser.add_argument("--same-settings", action="store_true", help="sample the bundle with the reference's settings, "
                        "which isolates the weights (default: each model with the settings that it ships)")  # fmt: skip
    parser.add_argument("--replay", action="store_true", help=argparse.SUPPRESS)
    verification.add_device(parser)
    add_trusted_key(parser)
    verification.add_procedures(parser)
    verification.add_sampling(parser)
    verification.add_outputs(parser)
    add_limits(parser)


def run(args: argparse.Namespace) -> int:
    """Verify, report, and return the outcome."""
    if args.replay:
        raise UsageError(
            "--replay was removed: its samples were not those of the deployed bundle, and it was not faster.",
            hint="Leave it out; every reply is decoded as it is deployed.",
        )
    if (args.reference is None) == (args.baseline is None):
        raise UsageError(
            "verify takes exactly one of --reference and --baseline.",
            hint="Try: edgedistill verify BUNDLE --reference FP32-BUNDLE",
        )
    if args.baseline is not None and not args.baseline.is_file():
        raise UsageError(
            f"There is no baseline at {args.baseline}; expected a file.",
            hint="Make one with: edgedistill baseline create REFERENCE -o FILE",
        )
    from edgedistill.verbs import verify
    from edgedistill.verify.options import VerifyOptions

    options = verification.options(args, VerifyOptions, margins=margins(args.margin))
    verification.check_outputs(args)
    bundle = args.bundle if isinstance(args.bundle, str) else bundle_path(args.bundle)
    with verification.cluster(args) as cluster, console.progress() as progress:
        report = verify(
            bundle,
            reference=args.reference or args.baseline,
            suite=suite_reading.suite(args),
            options=options,
            store=verification.store(args),
            progress=progress,
            cluster=cluster,
            device=args.device,
        )
    verification.deliver(report, args)
    return report.exit_code


def _bundle(text: str) -> str | Path:
    return text if text.startswith(("http://", "https://")) else Path(text)


def _duration(text: str) -> float:
    try:
        return parse_seconds(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration; expected for instance 20m or 1h30m") from None


def margins(texts: list[str]) -> dict[str, float]:
    """``["accuracy=0.05"]`` to a table; raises UsageError for anything else."""
    found: dict[str, float] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            equals = ""
        if not equals or not name:
            raise UsageError(f"--margin is {text!r}; expected NAME=NUMBER, for instance accuracy=0.05.")
        if name in found:
            raise UsageError(f"--margin {name} was given twice.", hint="Drop one of the two.")
        found[name] = number
    return found
