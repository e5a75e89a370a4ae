"""``edgedistill inspect``: what is in a bundle, from its manifest alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.architecture.family_table import FAMILIES
from edgedistill.bundle.bundle import Bundle
from edgedistill.bundle.opening_memory import in_planes, is_supplied, opening_bytes
from edgedistill.bundle.signature import trusted_key as required_key
from edgedistill.bundle.verification_record import distance_sentence, sentence
from edgedistill.cli import console
from edgedistill.cli.bundle_options import add_trusted_key
from edgedistill.quantize.plan import PREFILL
from edgedistill.units import format_bytes, format_count

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from edgedistill.bundle.manifest import KVCacheInfo, Manifest, WeightEntry

EXAMPLES = """\
examples:
  edgedistill inspect my-bundle
  edgedistill inspect my-bundle --weights      every weight with its format
  edgedistill inspect my-bundle --verify       compare every SHA-256"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``inspect``."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="bundle directory")
    parser.add_argument("--weights", action="store_true", help="list every weight")
    parser.add_argument("--verify", action="store_true", help="compare the SHA-256 of every file with the manifest")
    add_trusted_key(parser)
    parser.add_argument("--json", action="store_true", help="print the manifest and the groups as JSON")


def run(args: argparse.Namespace) -> int:
    """Open the bundle and show it."""
    key = required_key()
    verified = args.verify or key is not None
    with console.progress(quiet=not verified) as progress:
        bundle = Bundle.open(args.bundle, check="full" if args.verify else "size", progress=progress)
    groups = group_weights(bundle.manifest.weights)
    if args.json:
        import dataclasses

        console.out_json(
            {
                "path": str(bundle.path),
                "identity": bundle.identity(),
                "bytes": bundle.size,
                "signed_by": None if key is None else str(key),
                "verified": "sha256" if verified else "size",
                "groups": groups,
                "manifest": dataclasses.asdict(bundle.manifest),
            }
        )
        return 0
    _print_model(bundle)
    _print_groups(groups)
    if args.weights:
        _print_weights(bundle.manifest.weights)
    _print_files(bundle, verified=verified)
    return 0


def group_of(name: str) -> str:
    """Group of a weight by its logical name: embedding, lm_head, attention, recurrent, mlp, norms, biases, prefill
    form or other.
    """
    if name.startswith(PREFILL):
        return "prefill form"
    if name.endswith(".bias"):
        return "biases"
    if "norm" in name:
        return "norms"
    recurrent = dict.fromkeys((".conv.", ".delta.", ".mamba."), "recurrent")
    groups = {"embed": "embedding", "lm_head": "lm_head", ".attn.": "attention", **recurrent, ".mlp.": "mlp"}
    for mark, group in groups.items():
        if mark in name:
            return group
    return "other"


def group_weights(weights: Sequence[WeightEntry]) -> list[dict[str, Any]]:
    """Sum weights by group: name, formats, count, parameters, bytes, bits_per_weight; in order of first appearance."""
    groups: dict[str, dict[str, Any]] = {}
    for weight in weights:
        group = groups.setdefault(
            group_of(weight.name), {"formats": [], "weights": 0, "parameters": 0, "bytes": 0, "bits_per_weight": 0.0}
        )
        if weight.format.label() not in group["formats"]:
            group["formats"].append(weight.format.label())
        group["weights"] += 1
        group["parameters"] += math.prod(weight.shape)
        group["bytes"] += weight.nbytes
        group["bits_per_weight"] = 8 * group["bytes"] / max(1, group["parameters"])
    return [{"name": name, **group} for name, group in groups.items()]


def _print_model(bundle: Bundle) -> None:
    manifest, model = bundle.manifest, bundle.manifest.model
    source = manifest.source
    revision = f" at {source['revision']}" if source.get("revision") else ""
    adapter = f" + adapter {source['adapter'].get('name', '')}" if source.get("adapter") else ""
    pairs = [
        ("bundle", f"{bundle.path} ({format_bytes(bundle.size)})"),
        ("identity", bundle.identity()),
        ("source", f"{source.get('kind', '?')} {source.get('name', '?')}{revision}{adapter}"),
        ("source sha256", str(source.get("sha256") or "not recorded")),
        ("licence", str(source.get("license") or "not stated by the source")),
        ("profile", str(manifest.profile.get("name", "?"))),
        (
            "model",
            f"{model.family}, {model.num_hidden_layers} layers, hidden {model.hidden_size}, "
            f"{model.num_attention_heads}/{model.num_key_value_heads} heads of {model.head_dim}, "
            f"vocabulary {model.vocab_size}",
        ),
        (
            "weights",
            f"{format_count(manifest.parameters)} parameters, {manifest.bits_per_weight:.2f} bits per weight",
        ),
        *_choice(manifest.choice),
        ("activations", _activations(manifest.weights)),
        *_opening(manifest),
        (
            "KV cache",
            f"{_cache_type(manifest.kv_cache)}, {format_bytes(manifest.kv_cache.bytes_per_token)} per token, "
            f"{format_bytes(manifest.kv_cache.bytes_per_token * model.context_length)} at {model.context_length}",
        ),
        *([("states", f"{format_bytes(model.state_bytes)} a sequence, float32")] if model.states else []),
        ("calibration", _calibration(manifest.calibration, model.family)),
        ("distance", distance_sentence(manifest.distance)),
        ("verified", sentence(manifest.verification)),
        ("tuned", _tuned(manifest.tuning)),
        ("made", f"{manifest.created} with " + ", ".join(f"{k} {v}" for k, v in manifest.tool.items())),
    ]
    console.out(console.fields(pairs))


def _cache_type(info: KVCacheInfo) -> str:
    return info.dtype if info.scales is None else f"{info.dtype} {info.scales} (calibrated on {info.calibration})"


def _choice(record: dict[str, Any]) -> list[tuple[str, str]]:
    """The budget that formats were chosen under, if any."""
    if not record:
        return []
    budget = ", ".join(f"{name} {value:g}" for name, value in record["budget"].items())
    how = record.get("sensitivity", "measured")
    return [("chosen under", f"{budget}: predicted KL {record['predicted_kl']:.3g}, by {how} sensitivity")]


def _activations(weights: Sequence[WeightEntry]) -> str:
    """How the matrices' kernels take activations, with the number of matrices where they differ."""
    counts: dict[str, int] = {}
    for weight in weights:
        if len(weight.shape) == 2:
            counts[weight.format.activations] = counts.get(weight.format.activations, 0) + 1
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} x {words}" for words, count in counts.items())


def _opening(manifest: Manifest) -> list[tuple[str, str]]:
    """What widening codes of 3, 5 or 6 bits takes, if there are any."""
    size = opening_bytes(manifest)
    if not size or not any(in_planes(weight.format) for weight in manifest.weights):
        return []
    how = "by the runtime" if is_supplied(manifest) else "by the graph (an export with this version takes less)"
    return [("opening", f"up to {format_bytes(size)} of memory: codes in bit planes are widened {how}")]


def _calibration(record: dict[str, Any], family: str) -> str:
    """What the layers were calibrated with, in words."""
    if not record:
        known = FAMILIES.get(family)
        return "none" if known and known.altup else "none (see: edgedistill export --calibrate)"
    quick = not record.get("gptq", {}).get("sequential", True)
    how = " (quickly; see: edgedistill export --calibrate)" if quick else ""
    return f"{record['tokens']} tokens in {record['sequences']} sequences, {record['origin']}{how}"


def _tuned(tuning: dict[str, Any]) -> str:
    """What ``edgedistill tune`` gained, in one line."""
    if not tuning:
        return "no"
    before, after = tuning["before"]["kl"], tuning["after"]["kl"]
    return f"KL to the original {before:.4f} -> {after:.4f} nats on held-out traces, {tuning['best_step']} steps"


def _print_groups(groups: Sequence[dict[str, Any]]) -> None:
    rows = [
        (
            str(group["name"]),
            ", ".join(group["formats"]),
            str(group["weights"]),
            format_count(group["parameters"]),
            format_bytes(group["bytes"]),
            f"{group['bits_per_weight']:.2f}",
        )
        for group in groups
    ]
    console.out()
    headers = ("group", "format", "weights", "parameters", "size", "bits/weight")
    console.out(console.table(headers, rows, right=(2, 3, 4, 5)))


def _print_weights(weights: Sequence[WeightEntry]) -> None:
    rows = [(w.name, " x ".join(str(n) for n in w.shape), w.format.label(), format_bytes(w.nbytes)) for w in weights]
    console.out()
    console.out(console.table(("weight", "shape", "format", "size"), rows, right=(3,)))


def _print_files(bundle: Bundle, *, verified: bool) -> None:
    rows = [(f.name, format_bytes(f.size), f.sha256) for f in bundle.manifest.files]
    console.out()
    console.out(console.table(("file", "size", "sha256"), rows, right=(1,)))
    console.out()
    if verified:
        console.out(console.style("All hashes match the manifest.", "green"))
    else:
        console.out("Sizes match the manifest; --verify compares the hashes too.")
