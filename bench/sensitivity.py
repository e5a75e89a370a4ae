"""Compares estimated sensitivities of matrices with measured ones (rank correlation, ratio, time), and checks
predictions.

    python bench/sensitivity.py [--models tiny-reasoner smollm2-135m] [--depths 4] [--bits 5 6] [--json FILE]

Both are computed on the same tokens of the model's own traces. What a budget needs of an estimate is the order of the
matrices and the ratios between them; the mean KL of each matrix alone spans orders of magnitude. Measurements are kept
in the user's cache: an interrupted run goes on, and the second one is not timed any more.

With --bits, a bundle is made within each of these budgets, and its KL on held-out traces is printed beside the
predicted one, with and without the factor for calibration (choose.CALIBRATED). That factor is measured as well: the KL
of all layers in one 4-bit format with calibrated scales over that with searched scales, with the embedding in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from originals import original

from edgedistill import ExportOptions, export
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.comparison import quality
from edgedistill.export.mixed_precision import sensitivity, sensitivity_estimate
from edgedistill.export.native import usable_cores
from edgedistill.export.plan import make_plan
from edgedistill.profile.profile import Profile, load_profile
from edgedistill.progress import NullProgress
from edgedistill.quantize.plan import parse_format
from edgedistill.runtime.model import open_bundle
from edgedistill.runtime.session import DecoderSession
from edgedistill.traces.generate import self_generated
from edgedistill.workflow.calibration_traces import traces_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.runtime.model import Model

FORMATS = ("int4-b32-asym-search-s8", "int8-b32-sym-search-s8")


def compare(name: str, depths: int, work: Path) -> dict[str, Any]:
    """Both, and how they agree over the matrices of layers in the first of ``FORMATS``; JSON-able."""
    formats = [parse_format(label) for label in FORMATS]
    source = original(name, work)
    traces = traces_for(source, ExportOptions(calibration_tokens=1024))
    with open_checkpoint(source) as checkpoint:
        plan = make_plan(checkpoint, load_profile("reference-fp32"))
        identity = checkpoint.hash_source(NullProgress())
        arguments = (plan, checkpoint.tensors, traces, formats)
        begun = time.perf_counter()
        estimated = sensitivity_estimate.estimate(
            *arguments, source_hash=identity, threads=usable_cores(), depths=depths
        )
        middle = time.perf_counter()
        measured = sensitivity.measure(*arguments, source_hash=identity, threads=usable_cores())
        seconds = {"estimated": middle - begun, "measured": time.perf_counter() - middle}
    found = {"estimated": estimated, "measured": measured}
    layers = [n for n in found["measured"] if n.startswith("layers.") and found["measured"][n][FORMATS[0]] > 0]
    a, b = (np.array([found[how][n][FORMATS[0]] for n in layers]) for how in ("estimated", "measured"))
    followed = set(sensitivity_estimate.followed_layers(plan.spec.num_hidden_layers, depths))
    others = np.array([int(n.split(".")[1]) not in followed for n in layers])
    return {
        "matrices": len(layers),
        "seconds": seconds,
        "rank_correlation": rank_correlation(a, b),
        "rank_correlation_of_estimated": rank_correlation(a[others], b[others]) if others.sum() > 2 else None,
        "ratio_quantiles": [float(q) for q in np.quantile(a / b, (0.05, 0.5, 0.95))],
        "sum_ratio": float(a.sum() / b.sum()),
        "found": found,
    }


def predictions(name: str, bits: Sequence[float], tokens: int, work: Path) -> dict[str, Any]:
    """Predicted and measured KL of budgets, and what calibration leaves of a 4-bit format's; JSON-able."""
    source, made, logits = original(name, work), work / f"{name}-made", work / f"{name}-logits.f32"
    calibration = traces_for(source, ExportOptions(calibration_tokens=tokens))
    export(source, made, profile="reference-fp32", check=False, verify=False, force=True)
    with open_bundle(made) as model:
        held_out = self_generated(model, sequences=8, length=256, seed=1)
        # Prompts count too, as they do where sensitivities are measured.
        some = quality.texts(held_out.sequences, [0] * len(held_out.sequences), 1500)
        quality.store(logits, session(model), some, chunk=256, progress=NullProgress())

    def measured() -> float:
        with open_bundle(made) as model:
            return quality.compare(
                logits, session(model), some, steps=False, name=name, chunk=256, progress=NullProgress()
            ).kl

    found: dict[str, Any] = {"budgets": {}}
    for value in bits:
        choice = export(
            source, made, calibration=calibration, bits_per_weight=value, check=False, verify=False, force=True
        ).manifest.choice
        keys = ("predicted_kl", "predicted_kl_without_calibration")
        found["budgets"][value] = {key: choice[key] for key in keys} | {"measured_kl": measured()}
    for method in ("search", "gptq"):
        values = load_profile("laptop-cpu").to_dict()
        values["weights"] |= {"default": f"int4-b32-asym-{method}-s8", "rules": [{"match": "embed", "format": "fp32"}]}
        profile = Profile.from_dict(values, source="benchmark")
        given = calibration if method == "gptq" else None
        export(source, made, profile=profile, calibration=given, check=False, verify=False, force=True)
        found[method] = measured()
    logits.unlink()
    return found


def session(model: Model) -> DecoderSession:
    """The session of an own bundle."""
    assert isinstance(model.session, DecoderSession)
    return model.session


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's, of values without ties."""
    return float(np.corrcoef(np.argsort(np.argsort(a)), np.argsort(np.argsort(b)))[0, 1])


def main() -> int:
    """Parse, compute, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny-reasoner", "smollm2-135m"])
    parser.add_argument("--depths", type=int, default=sensitivity_estimate.DEPTHS, help="layers followed to the logits")
    parser.add_argument(
        "--bits", nargs="*", type=float, default=[], metavar="B", help="budgets to check predictions on"
    )
    parser.add_argument("--calibration-tokens", type=int, default=ExportOptions().calibration_tokens)
    parser.add_argument("--work", type=Path, default=Path("bench-results/sensitivity"), metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    result = {name: compare(name, args.depths, args.work) for name in args.models}
    print(
        "| model | matrices | rank correlation | of those not followed | ratio: 5 %, median, 95 % | of sums | seconds |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, one in result.items():
        others = one["rank_correlation_of_estimated"]
        low, middle, high = one["ratio_quantiles"]
        apart = "-" if others is None else f"{others:.3f}"
        times = one["seconds"]
        print(
            f"| {name} | {one['matrices']} | {one['rank_correlation']:.3f} | {apart} "
            f"| {low:.2f}, {middle:.2f}, {high:.2f} | {one['sum_ratio']:.2f} "
            f"| {times['estimated']:.0f} against {times['measured']:.0f} |"
        )
    for name in result if args.bits else ():
        found = result[name]["predictions"] = predictions(name, args.bits, args.calibration_tokens, args.work)
        print(f"\n{name}: calibration leaves {found['gptq'] / found['search']:.2f} of a KL of {found['search']:.4f}\n")
        print("| bits/weight | predicted KL | without calibration | measured |\n|---|---|---|---|")
        for value, one in found["budgets"].items():
            print(
                f"| {value:g} | {one['predicted_kl']:.4f} | {one['predicted_kl_without_calibration']:.4f} "
                f"| {one['measured_kl']:.4f} |"
            )
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
