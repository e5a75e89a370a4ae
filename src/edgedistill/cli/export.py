"""``edgedistill export``: arguments of the pipeline, its progress, and a summary with the next command to try."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bundle.verification_record import distance_sentence, sentence
from edgedistill.cli import console
from edgedistill.errors import UsageError
from edgedistill.extras import require_export
from edgedistill.profile.quality import QUALITIES
from edgedistill.quantize.spec import KV_BITS
from edgedistill.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from edgedistill.export.pipeline import ExportResult

EXAMPLES = """\
models:
  tiny-reasoner            a built-in name (see: edgedistill models list)
  ./my-student             a directory with config.json, tokenizer.json and safetensors
  student.Q4_K_M.gguf      a GGUF file, quantized or not
  Qwen/Qwen3-0.6B          a Hugging Face Hub id

formats:
  fp32, int8, int6, int5, int4, int3 or int2, with details as in int4-b128-sym-rtn: block size, symmetric (sym) or with
  zero points (asym), scale search (search) or round to nearest (rtn);
  w8a8: activations in 8 bits too, fast where many tokens are computed at once

examples:
  edgedistill export tiny-reasoner -o my-bundle
  edgedistill export ./my-student --profile raspberry-pi-5 -o student-pi
  edgedistill export ./my-student --calibrate -o my-bundle
  edgedistill export ./my-student --quality small -o my-bundle
  edgedistill export ./my-student --bits-per-weight 5.5 -o my-bundle
  edgedistill export ./my-student --max-memory 1.5GB -o my-bundle
  edgedistill export ./base --adapter ./lora --format int8 -o merged
  edgedistill export ./my-student --context 32768 --kv-cache int8 -o long
  edgedistill export model.gguf --context 4096 --force -o my-bundle"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``export``."""
    parser.add_argument("model", nargs="?", metavar="MODEL", help="model to export (see models below)")
    parser.add_argument("--model", dest="model_option", metavar="MODEL", help="the model, as an option")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="bundle directory to make")
    parser.add_argument(
        "--profile", default="laptop-cpu", metavar="P", help="hardware profile: name or TOML path (laptop-cpu)"
    )
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="PEFT LoRA directory to merge")
    parser.add_argument("--revision", metavar="REV", help="branch, tag or commit on the hub")
    parser.add_argument("--offline", action="store_true", help="never touch the network")
    parser.add_argument(
        "--exporter",
        choices=("auto", "own", "optimum"),
        default="auto",
        help="own: the native exporter; optimum: the fallback exporter (optimum-onnx), for other architectures; auto "
        "(default): own if it knows the model",
    )
    parser.add_argument("--format", metavar="F", help="one format instead of the profile's rules")
    parser.add_argument(
        "--quality",
        choices=QUALITIES,
        help="a named recipe instead of the profile's rules: small (some 5 bits a weight), balanced (6) or high (8)",
    )
    parser.add_argument("--block-size", type=int, metavar="N", help="block size of the quantized formats: 16 to 256")
    parser.add_argument("--context", type=int, metavar="N", help="longest prompt plus answer, in tokens")
    parser.add_argument(
        "--prefill", metavar="F", help="format of a second form of the layers, for prompts and scoring (w8a8)"
    )
    parser.add_argument(
        "--kv-cache",
        choices=tuple(KV_BITS),
        metavar="T",
        help="type of keys and values: float32, int8 (a quarter of the memory) or int4 (an eighth, costs quality)",
    )
    parser.add_argument(
        "--calibrate",
        action=argparse.BooleanOptionalAction,
        help="quantize the layers so that their outputs change least on the model's own replies: closest to the "
        "original; takes minutes for 135 M parameters (default: a quick calibration on built-in text; --no-calibrate: "
        "none, which is faster and further from the original)",
    )
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="calibrate on this text instead (plain, or JSONL with text, messages, or prompt and reply)",
    )
    parser.add_argument("--calibration-tokens", type=int, metavar="N", help="tokens to calibrate with (16384)")
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument(
        "--bits-per-weight",
        type=float,
        metavar="B",
        help="choose each matrix's format by its measured sensitivity, so that all together take B bits a weight",
    )
    sizes.add_argument("--max-size", metavar="S", help="the same, so that the weights take at most S (2.5GB, 900MB)")
    sizes.add_argument(
        "--max-memory", metavar="S", help="the same, so that the bundle in use takes at most S of memory (1.5GB)"
    )
    sizes.add_argument("--max-kl", type=float, metavar="K", help="the smallest bundle predicted to stay within K nats")
    parser.add_argument(
        "--sensitivity",
        choices=("auto", "measured", "estimated"),
        help="how a budget finds the effect of each matrix on the output: measured for every matrix, estimated "
        "from some (much faster), or auto: measured up to a billion parameters",
    )
    parser.add_argument(
        "--keep-quantization",
        action=argparse.BooleanOptionalAction,
        help="store matrices of a quantized MODEL (most types of GGUF, MXFP4, AWQ, GPTQ) with its codes instead of "
        "rounding twice (default: where the profile asks for as many bits or more)",
    )
    parser.add_argument(
        "--allow-unused",
        action="store_true",
        help="export even if the checkpoint has tensors that its config does not use",
    )
    parser.add_argument(
        "--layout",
        metavar="L",
        help="make a layout for other programs instead of a bundle: optimum, transformers.js, genai, or hub for all of "
        "them (see: edgedistill layout --help)",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing bundle")
    parser.add_argument(
        "--no-check", dest="check", action="store_false", help="skip the trial run of the finished bundle"
    )
    parser.add_argument(
        "--no-distance",
        dest="distance",
        action="store_false",
        help="do not measure the divergence from the original on 512 tokens of held-out text",
    )
    parser.add_argument(
        "--no-verify",
        dest="verify",
        action="store_false",
        help="skip the short verification (at most half a minute) whose result the manifest records",
    )
    parser.add_argument(
        "--reference",
        metavar="REF",
        help="reference for the short verification to compare with, as in edgedistill verify",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Export and print the summary."""
    if (args.model is None) == (args.model_option is None):
        raise UsageError(
            "export takes exactly one MODEL, as an argument or with --model.",
            hint="Try: edgedistill export tiny-reasoner -o my-bundle",
        )
    if args.reference is not None and not args.verify:
        raise UsageError("--reference and --no-verify exclude each other.", hint="Drop one of the two.")
    sized = any(value is not None for value in (args.bits_per_weight, args.max_size, args.max_memory, args.max_kl))
    calibrate = args.calibrate or args.calibration is not None or sized
    _check_calibration(args, sized=sized, calibrate=calibrate)
    for name, value in (("--format", args.format), ("--block-size", args.block_size)):
        if sized and value is not None:
            raise UsageError(f"{name} and a budget exclude each other.", hint="Drop one of the two.")
    if args.sensitivity is not None and not sized:
        raise UsageError(
            "--sensitivity has no effect without a budget.",
            hint="Add --bits-per-weight, --max-size, --max-memory or --max-kl, or leave it out.",
        )
    require_export("export")
    from edgedistill.export.options import ExportOptions
    from edgedistill.workflow.export import export

    given = {f.name: getattr(args, f.name, None) for f in dataclasses.fields(ExportOptions)}
    options = ExportOptions(**{name: value for name, value in given.items() if value is not None})
    with console.progress() as progress:
        result = export(args.model or args.model_option, args.out, options, progress=progress)
    if args.profile.endswith(".toml"):
        # Built-in profiles name weights that only some architectures have; in one's own, it is probably a typing error.
        for rule in result.unused_rules:
            console.note(f"note: the profile's rule {rule!r} matched no weight of this model.")
    for note in result.notes:
        console.note(f"note: {note}")
    if args.json:
        console.out_json(result.to_dict())
    else:
        _print_summary(result, args.layout)
    return 0


def _check_calibration(args: argparse.Namespace, *, sized: bool, calibrate: bool) -> None:
    """Raises UsageError for options of calibration that exclude others."""
    if args.calibrate is False and (sized or args.calibration is not None):
        raise UsageError(
            "--no-calibrate excludes budgets and --calibration: they calibrate.", hint="Drop one of the two."
        )
    if args.exporter == "optimum" and calibrate:
        raise UsageError(
            "--exporter optimum excludes calibration and budgets: it quantizes without them.",
            hint="Drop one of the two.",
        )
    if args.calibration_tokens is not None and not calibrate:
        raise UsageError(
            "--calibration-tokens has no effect without calibration.",
            hint="Add --calibrate, or name a text with --calibration FILE.",
        )


def _print_summary(result: ExportResult, layout: str | None) -> None:
    manifest = result.manifest
    size = sum(file.size for file in manifest.files)
    pairs = [
        ("bundle", f"{result.path} ({format_bytes(size)})"),
        (
            "model",
            f"{manifest.model.family}, {format_count(manifest.parameters)} parameters, "
            f"{manifest.bits_per_weight:.2f} bits per weight",
        ),
        (
            "context",
            f"{manifest.model.context_length} tokens, {format_bytes(manifest.kv_cache.bytes_per_token)} each "
            f"({manifest.kv_cache.dtype})",
        ),
        ("time", format_seconds(result.seconds)),
        ("peak memory", format_bytes(result.peak_rss_bytes)),
    ]
    if manifest.distance:
        pairs.insert(3, ("distance", distance_sentence(manifest.distance)))
    if manifest.verification:
        pairs.insert(3, ("verified", sentence(manifest.verification)))
        if "not_recorded" in manifest.verification:
            console.note(f"note: the bundle does not record its verification: {manifest.verification['not_recorded']}")
    if manifest.choice:
        formats = Counter(one["format"] for one in manifest.choice["weights"].values())
        words = ", ".join(f"{count} x {label}" for label, count in sorted(formats.items()))
        pairs.insert(2, ("formats", f"{words}; predicted KL {manifest.choice['predicted_kl']:.3g}"))
    if manifest.calibration:
        found = manifest.calibration
        failed = f", {len(found['failed'])} weights by scale search (see manifest.json)" if found["failed"] else ""
        quick = not found["gptq"].get("sequential", True)
        seconds = format_seconds(result.weights_seconds)
        how = f" (quickly, {seconds}; --calibrate: thoroughly, in minutes)" if quick else ""
        pairs.insert(2, ("calibrated", f"{found['tokens']} tokens, {found['origin']}{how}{failed}"))
    if result.reused_weights:
        pairs.append(("resumed", f"{result.reused_weights} weights taken over from an interrupted run"))
    console.out(console.fields(pairs))
    if layout is not None:
        console.out(f"layout       {layout}; {result.path}/README.md says how to open it")
        return
    console.out()
    console.out(f"Try: edgedistill run {shlex.quote(str(result.path))} " + '"What is 17 + 25?"')
