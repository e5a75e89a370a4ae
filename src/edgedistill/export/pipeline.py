"""The export, top to bottom: open, plan, check the budget, stream the weights, write the graphs, try it, rename.

Everything that decides something lives in its own module; this file only puts them in order.

Must not know: how tensors are quantized, how nodes are built, how progress is drawn.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgedistill.architecture.spec import ModelSpec
from edgedistill.bundle.staging import Staging, check_target, disk_errors
from edgedistill.checkpoint.open import Checkpoint, open_checkpoint
from edgedistill.errors import UnsupportedModelError, UsageError
from edgedistill.export import manifest as record
from edgedistill.export import text_files as texts
from edgedistill.export import trial_run as probe
from edgedistill.export.mixed_precision.choose import Sensitivity, SizeBudget, choose_formats
from edgedistill.export.native import OwnExporter, usable_cores
from edgedistill.export.optimum import trace as optimum
from edgedistill.export.optimum.exporter import FallbackExporter
from edgedistill.profile.profile import Profile, load_profile
from edgedistill.progress import NullProgress, Progress
from edgedistill.quantize.plan import parse_format

if TYPE_CHECKING:
    from edgedistill.bundle.manifest import Manifest
    from edgedistill.quantize.gptq import GptqOptions
    from edgedistill.quantize.spec import WeightFormat
    from edgedistill.traces.traces import Traces

Exporter = Literal["auto", "own", "optimum"]


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export made and what it cost.

    ``seconds`` is the whole wall time, ``reused_weights`` counts weights taken over from an interrupted run,
    ``unused_rules`` lists profile rules that matched no weight.
    """

    path: Path
    manifest: Manifest
    seconds: float
    weights_seconds: float
    peak_rss_bytes: int
    reused_weights: int
    unused_rules: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able summary (the manifest itself stays in the bundle)."""
        return {
            "path": str(self.path),
            "bundle_bytes": sum(f.size for f in self.manifest.files),
            "parameters": self.manifest.parameters,
            "bits_per_weight": self.manifest.bits_per_weight,
            "context_length": self.manifest.model.context_length,
            "seconds": self.seconds,
            "weights_seconds": self.weights_seconds,
            "peak_rss_bytes": self.peak_rss_bytes,
            "reused_weights": self.reused_weights,
            "unused_rules": list(self.unused_rules),
            "check": self.manifest.check,
            "verification": self.manifest.verification,
            "predicted": self.manifest.predicted,
        }


def export(
    model: str | Path,
    out: str | Path,
    *,
    profile: str | Path | Profile = "laptop-cpu",
    adapter: str | Path | None = None,
    revision: str | None = None,
    offline: bool = False,
    exporter: Exporter = "auto",
    weight_format: WeightFormat | str | None = None,
    block_size: int | None = None,
    context_length: int | None = None,
    kv_cache: str | None = None,
    prefill_format: WeightFormat | str | None = None,
    calibration: Traces | None = None,
    gptq: GptqOptions | None = None,
    budget: SizeBudget | None = None,
    sensitivity: Sensitivity = "auto",
    force: bool = False,
    check: bool = True,
    progress: Progress | None = None,
) -> ExportResult:
    """Export ``model`` to a quantized ONNX bundle at ``out``.

    Args:
        model: Built-in name, local directory, GGUF file or Hub id.
        out: Bundle directory to make; must not exist, be empty, or hold a bundle and ``force`` be given.
        profile: Hardware profile: name, TOML path or Profile.
        adapter: PEFT LoRA directory to merge.
        revision: Hub revision (branch, tag or commit).
        offline: Never touch the network.
        exporter: ``own`` graph builder, ``optimum`` fallback, or ``auto``: own where the architecture is known.
        weight_format: Replaces the profile's weight rules by one format (``int8``, ``fp32``, ``int4-b128-sym``).
        block_size: Replaces the block size of every quantized format.
        context_length: Longest prompt plus output, in tokens; default: the profile's, capped by the model's.
        kv_cache: Replaces the profile's type of keys and values: ``float32``, ``int8`` or ``int4``.
        prefill_format: Format of a second form of the layers' matrices, for prefill and scoring (``w8a8``).
        calibration: Token sequences. Layers whose scales would be searched are quantized by ``gptq`` instead, and a
            quantized KV cache is calibrated with them too. None: scale search, and texts that the model writes.
        gptq: How ``gptq`` solves; default: ``GptqOptions()``.
        budget: Choose every matrix's format within it, by its sensitivity, instead of by the profile's rules.
        sensitivity: ``measured`` for every matrix, ``estimated`` from some of them, or by the model's size.
        force: Replace an existing bundle.
        check: Open the finished bundle and decode a few tokens before it gets its name.
        progress: Receiver of progress.

    Raises:
        EdgedistillError: Any problem with the input, the target or the budget; nothing half-written is left.
    """
    started = time.perf_counter()
    progress = progress or NullProgress()
    out = Path(out)
    profile = resolve_profile(
        profile,
        weight_format=weight_format,
        block_size=block_size,
        kv_cache=kv_cache,
        prefill_format=prefill_format,
        calibrated=calibration is not None,
        budgeted=budget is not None,
        exporter=exporter,
    )
    if budget is not None and calibration is None:
        raise UsageError("A budget needs calibration data.", hint="Add --calibrate, or --calibration FILE.")
    check_target(out, force=force)
    with open_checkpoint(
        str(model), adapter=Path(adapter) if adapter else None, revision=revision, offline=offline, progress=progress
    ) as checkpoint:
        source_hash = ""
        choice: dict[str, Any] = {}
        if budget is not None and calibration is not None:
            source_hash = checkpoint.hash_source(progress)
            profile, choice = choose_formats(
                checkpoint,
                profile,
                calibration,
                budget,
                source_hash=source_hash,
                threads=usable_cores(),
                context_length=context_length,
                sensitivity=sensitivity,
                progress=progress,
            )
            exporter = "own"
        maker = _choose(checkpoint, profile, exporter, context_length, calibration, gptq)
        maker.check_budget(out, trial=check)
        source_hash = source_hash or checkpoint.hash_source(progress)
        with Staging(out, force=force) as staging, disk_errors(staging.path):
            resume = staging.resume_or_clear(maker.fingerprint(source_hash))
            made = maker.make(staging.path, resume=resume, progress=progress)
            texts.write_texts(staging.path, checkpoint, profile, made.context_length)
            if isinstance(made.geometry, ModelSpec):
                texts.write_genai(staging.path, checkpoint, profile, made.geometry, made.context_length)
            manifest = replace(record.make_manifest(checkpoint, profile, made, source_hash), choice=choice)
            manifest = maker.quantize_cache(
                staging.path, manifest, calibration.sequences if calibration else None, progress
            )
            texts.write_card(staging.path, manifest, checkpoint.extra_files)
            manifest = record.with_files(staging.path, manifest, progress)
            if check:
                manifest = probe.checked(staging.path, manifest, progress=progress)
            staging.commit(manifest)
    return ExportResult(
        path=out,
        manifest=manifest,
        seconds=time.perf_counter() - started,
        weights_seconds=made.weights_seconds,
        peak_rss_bytes=probe.own_peak_rss(),
        reused_weights=made.reused_weights,
        unused_rules=tuple(rule.match for rule in made.planned.unused_rules),
    )


def resolve_profile(
    profile: str | Path | Profile = "laptop-cpu",
    *,
    weight_format: WeightFormat | str | None = None,
    block_size: int | None = None,
    kv_cache: str | None = None,
    prefill_format: WeightFormat | str | None = None,
    calibrated: bool = False,
    budgeted: bool = False,
    exporter: Exporter = "auto",
) -> Profile:
    """The profile with the overrides that ``export`` takes.

    Raises:
        UsageError: Calibration, where nothing that is to be made depends on it.
        ProfileError: No such profile.
    """
    if not isinstance(profile, Profile):
        profile = load_profile(profile)
    profile = profile.with_overrides(
        weight_format=parse_format(weight_format) if isinstance(weight_format, str) else weight_format,
        block_size=block_size,
        kv_cache=kv_cache,
        prefill=parse_format(prefill_format) if isinstance(prefill_format, str) else prefill_format,
        calibrated=calibrated,
    )
    if calibrated and exporter == "optimum":
        raise _uncalibrated()
    if calibrated and not budgeted:
        _check_calibration(profile)
    return profile


def _check_calibration(profile: Profile) -> None:
    """Raises UsageError where nothing that is to be made depends on calibration data."""
    formats = (profile.weights.default, *(rule.format for rule in profile.weights.all_rules))
    uses = any((fmt.method == "gptq" and not fmt.is_float) or fmt.is_w8a8 for fmt in formats)
    if not uses and not profile.kv_cache.is_quantized:
        raise UsageError(
            f"Calibration has no effect: {formats[0].label()} and a float32 KV cache need none.",
            hint="Leave it out, or choose a quantized format such as --format int4.",
        )


def _uncalibrated() -> UsageError:
    return UsageError(
        "Calibration, or a budget, was asked for; the optimum exporter quantizes without either.",
        hint="Export this model with a --format and without --calibrate.",
    )


def _choose(
    checkpoint: Checkpoint,
    profile: Profile,
    exporter: Exporter,
    context_length: int | None,
    calibration: Traces | None,
    gptq: GptqOptions | None,
) -> OwnExporter | FallbackExporter:
    """The exporter that was asked for; ``auto`` falls back where the architecture is unknown and optimum is there.

    Raises:
        UnsupportedModelError: The own exporter's reason, where the fallback was excluded or is not installed.
        UsageError: The fallback, with calibration.
    """
    if exporter != "optimum":
        try:
            return OwnExporter(checkpoint, profile, context_length, calibration, gptq)
        except UnsupportedModelError:
            if exporter == "own" or not optimum.is_available():
                raise
    if calibration is not None:
        raise _uncalibrated()
    return FallbackExporter(checkpoint, profile, context_length)
