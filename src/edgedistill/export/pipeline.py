"""The export from top to bottom: open, plan, check the budget, stream the weights, write the graphs, try it, rename.

Each step has its own module; this one calls them in order and resolves options that depend on each other.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill import notebook
from edgedistill.architecture.families import build_spec, is_known
from edgedistill.architecture.spec import ModelSpec
from edgedistill.bundle.bundle import Bundle
from edgedistill.bundle.staging import Staging, check_target, disk_errors
from edgedistill.checkpoint.open import Checkpoint, open_checkpoint
from edgedistill.errors import UnsupportedModelError, UsageError
from edgedistill.export import manifest as record
from edgedistill.export import text_files as texts
from edgedistill.export import trial_run as probe
from edgedistill.export.keep import keep_quantization
from edgedistill.export.mixed_precision.choose import choose_formats
from edgedistill.export.native import OwnExporter, usable_cores
from edgedistill.export.optimum import trace as optimum
from edgedistill.export.optimum.exporter import FallbackExporter
from edgedistill.export.options import ExportOptions
from edgedistill.json_codec import encode
from edgedistill.profile.profile import Profile, load_profile
from edgedistill.profile.quality import with_quality
from edgedistill.progress import NullProgress, Progress
from edgedistill.quantize.plan import parse_format
from edgedistill.runtime.stats import peak_rss_bytes
from edgedistill.runtime.trial import remember
from edgedistill.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.bundle.manifest import Manifest
    from edgedistill.quantize.spec import WeightFormat


_NAMED_METHOD = re.compile("-(rtn|search|gptq|kept)")
_FEW_BITS = 6
"""Largest number of bits with a quick calibration: with 8 bits, rounding of activations outweighs that of weights."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export made and what it cost.

    ``seconds`` is the whole wall time, ``reused_weights`` counts weights taken over from an interrupted run,
    ``unused_rules`` lists profile rules that matched no weight; ``notes`` are sentences about the checkpoint.
    """

    path: Path
    manifest: Manifest
    seconds: float
    weights_seconds: float
    peak_rss_bytes: int
    reused_weights: int
    unused_rules: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able summary (the manifest itself stays in the bundle)."""
        made = self.manifest
        names = ("parameters", "bits_per_weight", "check", "verification", "predicted", "distance")
        return {
            **{f.name: encode(getattr(self, f.name)) for f in fields(self) if f.name != "manifest"},
            **{name: getattr(made, name) for name in names},
            "bundle_bytes": sum(f.size for f in made.files),
            "context_length": made.model.context_length,
        }

    def _repr_html_(self) -> str:
        found = self.to_dict()
        rows = [
            ("bundle", f"{self.path} ({format_bytes(found['bundle_bytes'])})"),
            ("parameters", format_count(self.manifest.parameters)),
            ("bits per weight", f"{self.manifest.bits_per_weight:.2f}"),
            ("context", f"{self.manifest.model.context_length} tokens"),
            ("time", format_seconds(self.seconds)),
            ("peak memory", format_bytes(self.peak_rss_bytes)),
        ]
        return notebook.table((), rows)


def export(
    model: str | Path,
    out: str | Path,
    options: ExportOptions | None = None,
    *,
    progress: Progress | None = None,
) -> ExportResult:
    """Export ``model`` to a quantized ONNX bundle at ``out``.

    Args:
        model: Built-in name, local directory, GGUF file or Hub id.
        out: Directory of the bundle. It must not exist or be empty; with ``force`` it may hold a bundle.
        options: ``calibration`` has to be ``Traces`` here; ``verify`` and ``layout`` are for ``workflow.export``.
        progress: Receives steps and their progress.

    Raises:
        EdgedistillError: Any problem with the input, the target or the budget; nothing half-written is left.
    """
    started = time.perf_counter()
    progress = progress or NullProgress()
    out = Path(out)
    options = options or ExportOptions()
    profile = resolve_profile(options)
    budget, traces = options.budget, options.traces
    check_target(out, force=options.force)
    with open_checkpoint(
        str(model),
        adapter=Path(options.adapter) if options.adapter else None,
        revision=options.revision,
        offline=options.offline,
        progress=progress,
    ) as checkpoint:
        texts.generation_defaults(profile, checkpoint.generation_config)  # bad values are reported before any work
        source_hash = ""
        choice: dict[str, Any] = {}
        notes: tuple[str, ...] = ()
        if (feasible := calibratable(checkpoint.config, options)) is not options:
            options = feasible
            profile, traces = resolve_profile(options), options.traces
            notes = (
                f"Layers of {checkpoint.config['model_type']} have several residual streams: they are quantized "
                "without calibration.",
            )
        if budget is not None and traces is not None:
            source_hash = checkpoint.hash_source(progress)
            profile, choice = choose_formats(
                checkpoint,
                profile,
                traces,
                budget,
                source_hash=source_hash,
                threads=usable_cores(),
                context_length=options.context,
                sensitivity=options.sensitivity,
                progress=progress,
            )
            options = replace(options, exporter="own")
        else:
            profile, kept = _kept(checkpoint, profile, options)
            notes = (*notes, kept) if kept else notes
        maker = _choose(checkpoint, profile, options)
        maker.check_budget(out, trial=options.check)
        source_hash = source_hash or checkpoint.hash_source(progress)
        with Staging(out, force=options.force) as staging, disk_errors(staging.path):
            resume = staging.resume_or_clear(maker.fingerprint(source_hash))
            made = maker.make(staging.path, resume=resume, progress=progress)
            texts.write_texts(staging.path, checkpoint, profile, made.context_length)
            if isinstance(made.geometry, ModelSpec):
                texts.write_genai(staging.path, checkpoint, profile, made.geometry, made.context_length)
            manifest = replace(record.make_manifest(checkpoint, profile, made, source_hash), choice=choice)
            manifest = maker.quantize_cache(staging.path, manifest, options.observed, progress)
            if options.check and options.distance and isinstance(maker, OwnExporter):
                manifest = maker.measure_distance(staging.path, manifest, progress)
            texts.write_card(staging.path, manifest, checkpoint.extra_files)
            manifest = record.with_files(staging.path, manifest, progress)
            if options.check:
                manifest = probe.checked(staging.path, manifest, progress=progress)
            staging.commit(manifest)
    if options.check:
        remember(Bundle(out, manifest))
    return ExportResult(
        path=out,
        manifest=manifest,
        seconds=time.perf_counter() - started,
        weights_seconds=made.weights_seconds,
        peak_rss_bytes=peak_rss_bytes(),
        reused_weights=made.reused_weights,
        unused_rules=tuple(rule.match for rule in made.planned.unused_rules),
        notes=(*maker.notes, *notes),
    )


def resolve_profile(options: ExportOptions) -> Profile:
    """The profile of ``options`` with their overrides.

    Raises:
        UsageError: A quality together with a format or a budget; calibration of something that does not depend on it,
            or with the fallback exporter.
        ProfileError: No such profile.
    """
    profile = options.profile if isinstance(options.profile, Profile) else load_profile(options.profile)
    if options.quality is not None:
        if options.format is not None or options.budget is not None:
            raise UsageError(
                "A quality was given together with a format or a budget: each chooses all formats.",
                hint="Leave one of them out.",
            )
        profile = with_quality(profile, options.quality)
    profile = profile.with_overrides(
        weight_format=_parsed(options.format),
        block_size=options.block_size,
        kv_cache=options.kv_cache,
        prefill=_parsed(options.prefill),
        calibrated=options.calibrated,
    )
    if options.thorough and options.exporter == "optimum":
        raise _uncalibrated()
    if options.thorough and options.budget is None:
        _check_calibration(profile)
    return profile


def wants_quick_calibration(options: ExportOptions) -> bool:
    """Whether to calibrate quickly: the options say nothing about calibration or the method, and a format of at most 6
    bits would otherwise use scale search."""
    named = isinstance(options.format, str) and _NAMED_METHOD.search(options.format) is None
    if options.calibrate is not None or options.exporter == "optimum" or not (options.format is None or named):
        return False
    weights = resolve_profile(options).weights
    return any(fmt.method == "search" and fmt.bits <= _FEW_BITS for fmt in weights.formats)


def _parsed(weight_format: str | WeightFormat | None) -> WeightFormat | None:
    return parse_format(weight_format) if isinstance(weight_format, str) else weight_format


def _check_calibration(profile: Profile) -> None:
    """Raises UsageError if nothing in the profile depends on calibration data."""
    formats = profile.weights.formats
    uses = any((fmt.method == "gptq" and not fmt.is_float) or fmt.is_w8a8 for fmt in formats)
    if not uses and not profile.kv_cache.is_quantized:
        raise UsageError(
            f"Calibration has no effect: {formats[0].label()} and a float32 KV cache need none.",
            hint="Leave it out, or choose a quantized format such as --format int4.",
        )


def calibratable(config: Mapping[str, Any], options: ExportOptions) -> ExportOptions:
    """``options``, without a quick calibration for models with several residual streams (Gemma 3n).

    Raises:
        UnsupportedModelError: The user requested calibration of such a model, or a budget for one whose layers read
            more than the layer before them (Gemma 3n and 4).
    """
    if not options.calibrated or not is_known(config):
        return options
    spec = build_spec(config)
    if options.budget is not None and spec.has_own_sizes:
        raise UnsupportedModelError(
            f"A budget was asked for; layers of {spec.family} share keys and read a second embedding, and how "
            "sensitive each of their matrices is cannot be measured.",
            hint="Export this model with a --format or a --quality.",
        )
    if spec.altup is None:
        return options
    if options.thorough:
        raise UnsupportedModelError(
            f"Calibration was asked for; layers of {spec.family} have several residual streams, and are quantized "
            "without it.",
            hint="Export this model with a --format and without --calibrate.",
        )
    return replace(options, calibration=None, gptq=None)


def _uncalibrated() -> UsageError:
    return UsageError(
        "Calibration, or a budget, was asked for; the fallback exporter quantizes without either.",
        hint="Export this model with a --format and without --calibrate.",
    )


def _kept(checkpoint: Checkpoint, profile: Profile, options: ExportOptions) -> tuple[Profile, str]:
    """``profile`` with rules for matrices that keep their quantization, and a note about them.

    Unless the user requested it, this happens only if the profile chooses the formats.

    Raises:
        UsageError: It was requested, and is impossible or excluded by another option.
    """
    asked = options.keep_quantization
    if asked and (options.thorough or options.exporter == "optimum"):
        raise UsageError(
            "--keep-quantization was asked for together with "
            f"{'calibration, which quantizes anew' if options.thorough else 'the fallback exporter'}.",
            hint="Leave one of them out.",
        )
    decided = options.format is not None or options.block_size is not None
    if asked is False or options.thorough or options.exporter == "optimum" or (decided and not asked):
        return profile, ""
    try:
        return keep_quantization(checkpoint, profile, asked=bool(asked), allow_unused=options.allow_unused)
    except UnsupportedModelError:
        if asked:
            raise
        return profile, ""


def _choose(checkpoint: Checkpoint, profile: Profile, options: ExportOptions) -> OwnExporter | FallbackExporter:
    """The exporter of ``options``; ``auto`` falls back if the architecture is unknown and optimum is installed.

    Raises:
        UnsupportedModelError: The native exporter's reason, if the fallback is excluded or not installed.
        UsageError: The fallback, with calibration.
    """
    if options.exporter != "optimum":
        try:
            return OwnExporter(checkpoint, profile, options)
        except UnsupportedModelError:
            if options.exporter == "own" or not optimum.is_available():
                raise
    if options.thorough:
        raise _uncalibrated()
    if options.calibrated:  # a quick calibration, which this exporter does not have
        options = replace(options, calibration=None, gptq=None)
        profile = resolve_profile(options)
    return FallbackExporter(checkpoint, profile, options)
