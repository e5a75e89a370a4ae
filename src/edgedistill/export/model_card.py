"""Writes a bundle's README.md: what it is, how it was quantized, how to run it, and the front matter for the Hub.

The keys of the front matter are those of the Hub's model cards (huggingface_hub's ``ModelCardData``).
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from edgedistill.bundle.verification_record import distance_sentence, section
from edgedistill.units import format_bytes, format_count

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.bundle.manifest import Manifest

_FENCE = "---\n"
_LICENCES = frozenset({
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-ascl", "apple-amlr", "artistic-2.0", "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause", "bsl-1.0", "c-uda",
    "cc", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-2.0", "creativeml-openrail-m", "deepfloyd-if-license", "ecl-2.0",
    "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "fair-noncommercial-research-license", "gemma", "gpl",
    "gpl-2.0", "gpl-3.0", "h-research", "intel-research", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2",
    "llama3", "llama3.1", "llama3.2", "llama3.3", "llama4", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl",
    "odc-by", "ofl-1.1", "open-mdw", "openrail", "openrail++", "osl-3.0", "other", "pddl", "postgresql", "unknown",
    "unlicense", "wtfpl", "zlib",
})  # fmt: skip
"""Licence identifiers of the Hub; any other licence is ``other`` there, with its name in ``license_name``."""

_METRICS = (("accuracy", "accuracy"), ("agreement", "self-consistency"), ("entropy_bits", "answer entropy in bits"))


def front_matter(manifest: Manifest) -> str:
    """The card's YAML with its fences. Values are written as JSON, which is valid YAML."""
    source = manifest.source
    values: dict[str, Any] = {
        "library_name": "edgedistill",
        "pipeline_tag": "text-generation",
        **_licence(source.get("license")),
        "tags": ["onnx", "onnxruntime", "edgedistill", manifest.model.family],
    }
    if source.get("kind") == "hub":
        values |= {"base_model": source["name"], "base_model_relation": "quantized"}
        if source.get("revision"):
            values["base_model_revision"] = source["revision"]
    if results := _results(manifest.verification):
        values["model-index"] = [{"name": f"{source.get('name', '?')} ({_profile(manifest)})", "results": results}]
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()]
    return "".join([_FENCE, *lines, _FENCE])


def model_card(manifest: Manifest, *, genai_reads: bool) -> str:
    """The whole README.md of a bundle that has not been verified yet.

    Args:
        manifest: The bundle's.
        genai_reads: Whether onnxruntime-genai is known to read the tokenizer (``genai_config.reads_tokenizer``).
    """
    source, model = manifest.source, manifest.model
    groups: dict[str, list[int]] = {}
    for weight in manifest.weights:
        elements = math.prod(weight.shape)
        entry = groups.setdefault(weight.format.label(), [0, 0, 0])
        entry[0] += 1
        entry[1] += elements
        entry[2] += weight.nbytes
    rows = [
        f"| {label} | {count} | {format_count(elements)} | {format_bytes(nbytes)} | {8 * nbytes / elements:.2f} |"
        for label, (count, elements, nbytes) in groups.items()
    ]
    adapter = f", LoRA adapter {source['adapter'].get('name', 'merged')}" if source.get("adapter") else ""
    return front_matter(manifest) + "\n".join(
        [
            "",
            f"# {source.get('name', '?')} for {_profile(manifest)}",
            "",
            f"A {model.family} model with {format_count(manifest.parameters)} parameters at "
            f"{manifest.bits_per_weight:.2f} bits per weight, context {model.context_length} tokens{adapter}.",
            f"Source hash `{source.get('sha256') or 'not recorded'}`; every file's SHA-256 is in manifest.json.",
            "",
            "| format | weights | parameters | bytes | bits per weight |",
            "|---|---|---|---|---|",
            *rows,
            "",
            *([f"{distance_sentence(manifest.distance)}.", ""] if manifest.distance else []),
            "Run it, with edgedistill installed:",
            "",
            "```sh",
            'edgedistill run . "your question"',
            "```",
            "",
            *_others(manifest, genai_reads),
        ]
    )


def _others(manifest: Manifest, genai_reads: bool) -> list[str]:
    """Which other programs open the directory; tests open bundles in each program that is named."""
    if manifest.model.signature != "edgedistill":
        return ["Other programs: `edgedistill layout . optimum -o DIR`, or `transformers.js`.", ""]
    if manifest.model.states:
        return ["Its recurrent layers have states, which other programs do not feed: use edgedistill.", ""]
    if not manifest.model.is_uniform:
        return ["Its layers share keys or differ in size, which other programs do not feed: use edgedistill.", ""]
    genai = (
        "onnxruntime-genai opens this directory as it is."
        if genai_reads
        else "onnxruntime-genai may refuse this model's tokenizer or cut text otherwise: compare token ids first."
    )
    return [f"{genai} For optimum and transformers.js: `edgedistill layout . hub -o DIR`.", ""]


def with_verification(card: str, manifest: Manifest) -> str:
    """``card`` with a section on the verification that ``manifest`` records, and its figures in the front matter."""
    if card.startswith(_FENCE) and _FENCE in card[len(_FENCE) :]:
        card = front_matter(manifest) + card[len(_FENCE) :].partition(f"\n{_FENCE}")[2]
    return f"{card.rstrip()}\n\n{section(manifest.verification)}"


def _profile(manifest: Manifest) -> str:
    return str(manifest.profile.get("name", "an unnamed profile"))


def _licence(name: str | None) -> dict[str, str]:
    if not name:
        return {}
    identifier = name.strip().lower()
    return {"license": identifier} if identifier in _LICENCES else {"license": "other", "license_name": name.strip()}


def _results(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Results of a model-index from the record of a verification; empty if nothing was measured."""
    metrics = [
        {"type": key, "name": name, "value": round(float(found["value"]), 4)}
        for key, name in _METRICS
        if (found := record.get(key)) and found.get("value") is not None
    ]
    if record.get("status") != "checked" or not metrics:
        return []
    suite = record.get("suite", {}).get("name", "unnamed")
    dataset = {"type": suite, "name": f"{suite}, {record.get('prompts')} prompts x {record.get('samples')} samples"}
    return [{"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics}]
