"""The tuning of a bundle, top to bottom: check, draw traces, train, write, measure, rename."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill._version import __version__
from edgedistill.architecture.families import build_spec, check_tensors, logical_weights
from edgedistill.architecture.tensors import model_tensors
from edgedistill.bundle.bundle import MODEL, MODEL_CARD, TOKENIZER, Bundle
from edgedistill.bundle.staging import Staging, check_target, disk_errors
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import BundleError, UnsupportedModelError, UsageError
from edgedistill.export import manifest as record
from edgedistill.export import trial_run as probe
from edgedistill.extras import missing
from edgedistill.progress import NullProgress
from edgedistill.runtime.model import Model
from edgedistill.tune.arrays import StoredArrays
from edgedistill.tune.memory import check_memory
from edgedistill.tune.options import TuneOptions, TuneResult, with_tuning
from edgedistill.tune.sources import own_traces, traces_for
from edgedistill.verify.models.bundle import bundle_identity
from edgedistill.verify.references.open import original_name

if TYPE_CHECKING:
    from edgedistill.architecture.spec import ModelSpec
    from edgedistill.architecture.tensors import ModelTensors
    from edgedistill.bundle.manifest import Manifest
    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.progress import Progress
    from edgedistill.traces.traces import Traces

CHECKPOINT = ".tuning.pt"
_MISMATCH_KL = 0.25


def tune_bundle(
    bundle: str | Path,
    out: str | Path,
    *,
    reference: str | Path | None = None,
    adapter: str | Path | None = None,
    calibration: str | Path | None = None,
    options: TuneOptions | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> TuneResult:
    """Train scales, zero points, norms and biases of a bundle towards its original; codes stay as they are.

    Args:
        bundle: Quantized bundle of the native exporter. It is not changed.
        out: Bundle directory to make. An interrupted run with the same arguments is taken up.
        reference: The original: built-in name, directory, GGUF file or Hub id (nothing is downloaded). None: what the
            bundle's manifest names.
        adapter: PEFT LoRA directory to merge into the reference.
        calibration: Text or traces to train on; None: the reference's own replies to the built-in prompts.
        options: See there.
        force: Replace an existing bundle at ``out``.
        progress: Receiver of progress.

    Raises:
        MissingExtraError: PyTorch is not installed.
        BundleError: Not a bundle, one of the fallback exporter, or one that does not belong to the reference.
        UsageError: Nothing in the bundle is quantized.
        CalibrationError: Traces that are too few or of another tokenizer; a training that diverges.
        BudgetError: Not enough memory.
        OutputError: ``out`` is in use.
    """
    options, progress, out = options or TuneOptions(), progress or NullProgress(), Path(out)
    file = None if calibration is None else Path(calibration)
    source = Bundle.open(bundle)
    check_target(out, force=force)
    _check_bundle(source)
    name = str(reference) if reference is not None else original_name(source)
    with open_checkpoint(name, adapter=Path(adapter) if adapter else None, offline=True) as checkpoint:
        spec, tensors = _check_reference(source, checkpoint)
        _require_torch()  # before minutes of drawing traces
        reference_hash = checkpoint.hash_source(progress)
        with Staging(out, force=force, keep=True) as staging, disk_errors(staging.path):
            staging.resume_or_clear(_fingerprint(source, reference_hash, file, options))
            traces = traces_for(
                staging.path, name, adapter=adapter, file=file, bundle=source, options=options, progress=progress
            )
            return _tune(source, staging, checkpoint, spec, tensors, traces, options, progress)


def _tune(
    source: Bundle,
    staging: Staging,
    checkpoint: Checkpoint,
    spec: ModelSpec,
    tensors: ModelTensors,
    traces: Traces,
    options: TuneOptions,
    progress: Progress,
) -> TuneResult:
    from edgedistill.tune.loop import Trainer
    from edgedistill.tune.student import Student
    from edgedistill.tune.teacher import Teacher, deployed_divergence

    weights, context = logical_weights(spec), source.manifest.model.context_length
    stored = StoredArrays(source.file(MODEL))
    formats = {weight.name: weight.format for weight in source.manifest.weights}
    recompute = check_memory(spec, weights, options)
    train, held_out = traces.split(options.held_out)
    progress.begin("loading both models", 0, "items")
    student = Student(
        source.path, stored, formats, spec, weights, tensors,
        context=context, train_zero_points=options.zero_point_rate > 0, recompute=recompute,
    )  # fmt: skip
    if not student.matrices:
        raise BundleError(
            f"{source.path.name} stores its quantized matrices in a form that tuning does not know.",
            hint="Export the bundle again with this version.",
        )
    teacher = Teacher(spec, weights, tensors, context=context)
    progress.end()
    with Model(source) as model:
        before = deployed_divergence(model, teacher, held_out.sequences, progress)
    _copy_files(source, staging.path)

    def draw(number: int) -> Any:
        stored.write(staging.path, dict(student.arrays()))
        return own_traces(staging.path, source.manifest, number, options, progress).sequences

    trainer = Trainer(
        student,
        teacher,
        train.sequences,
        held_out.sequences,
        options,
        checkpoint=staging.path / CHECKPOINT,
        draw=draw if options.on_policy else None,
    )
    _check_agreement(trainer.first_kl(), before.kl)
    trainer.run(progress)
    stored.write(staging.path, dict(student.arrays()))
    changed = _changed(stored, source.path, staging.path, dict(student.arrays()))
    with Model(Bundle(staging.path, source.manifest)) as model:
        after = deployed_divergence(model, teacher, held_out.sequences, progress)
    state = trainer.state
    told = TuneResult(
        path=staging.out, manifest=source.manifest, before=before, after=after, steps=state.step,
        best_step=state.best_step, tokens=state.tokens, seconds=state.seconds, reason=state.reason, changed=changed,
        looks=tuple(trainer.looks),
    )  # fmt: skip
    manifest = _finish(source, staging, checkpoint, options, traces, told, student.frozen, progress)
    return dataclasses.replace(told, manifest=manifest)


def _finish(
    source: Bundle,
    staging: Staging,
    checkpoint: Checkpoint,
    options: TuneOptions,
    traces: Traces,
    told: TuneResult,
    frozen: list[str],
    progress: Progress,
) -> Manifest:
    """Manifest and model card of the tuned bundle; then it gets its name."""
    summary = told.to_dict()
    del summary["path"], summary["looks"]
    tuning = {
        **summary,
        "options": options.to_dict(),
        "traces": {"origin": traces.origin, "sha256": traces.sha256, "tokens": traces.tokens},
        "reference": dataclasses.asdict(checkpoint.source),
        "untuned_bundle": bundle_identity(source).sha256,
        "frozen": frozen,
    }
    # The short verification was of other weights.
    manifest = dataclasses.replace(
        source.manifest, created=record.now(), tool=record.tool_versions(), tuning=tuning, verification={}, files=()
    )
    path = staging.path / MODEL_CARD
    if path.is_file():
        path.write_text(with_tuning(path.read_text(encoding="utf-8"), told), encoding="utf-8")
    manifest = record.with_files(staging.path, manifest, progress)
    manifest = probe.checked(staging.path, manifest, progress=progress)
    staging.commit(manifest)
    return manifest


def _check_bundle(source: Bundle) -> None:
    if source.manifest.model.signature != "edgedistill":
        raise BundleError(
            f"{source.path.name} was made by the fallback exporter, whose graph cannot be tuned.",
            hint="Tuning needs a model that the native exporter knows (edgedistill export --exporter own).",
        )
    if all(weight.format.is_float or weight.format.is_w8a8 for weight in source.manifest.weights):
        raise UsageError(
            f"{source.path.name} has no blockwise quantized weight (fp32 and w8a8 stay as they are), so there is "
            "nothing to tune.",
            hint="Export with --format int4 first.",
        )


def _require_torch() -> None:
    try:
        import torch  # noqa: F401, TID251
    except ImportError as error:
        raise missing("tune needs PyTorch, which is not installed.", "torch") from error


def _check_reference(source: Bundle, checkpoint: Checkpoint) -> tuple[ModelSpec, ModelTensors]:
    """The architecture that bundle and reference share, and the reference's tensors; raises BundleError where they
    share none.
    """
    spec = build_spec(checkpoint.config)
    tensors = model_tensors(checkpoint.config, spec, checkpoint.tensors)
    if spec.sub_norms or spec.rounded_inputs or spec.has_own_sizes:
        raise UnsupportedModelError(
            f"Models of type {spec.family} have layers that tuning does not know.",
            hint=f"Export with {'--quality high' if spec.has_own_sizes else '--calibrate'} instead.",
        )
    check_tensors(spec, tensors)
    in_bundle = {weight.name: tuple(weight.shape) for weight in source.manifest.weights}
    in_reference = {weight.name: weight.shape for weight in logical_weights(spec)}
    hint = "Give the model that the bundle was exported from as --reference."
    if source.manifest.model.family != spec.family:
        raise BundleError(
            f"The bundle is a {source.manifest.model.family} model, the reference a {spec.family} model.", hint=hint
        )
    if in_bundle != in_reference:
        other = sorted(
            name for name in in_bundle.keys() | in_reference.keys() if in_bundle.get(name) != in_reference.get(name)
        )[0]
        raise BundleError(
            f"Bundle and reference have different weights: {other} is {_shape(in_bundle.get(other))} in the bundle, "
            f"{_shape(in_reference.get(other))} in the reference.",
            hint=hint,
        )
    found = hashlib.sha256(checkpoint.tokenizer_json).hexdigest()
    expected = next((f.sha256 for f in source.manifest.files if f.name == TOKENIZER), "")
    if found != expected:
        raise BundleError("Bundle and reference have different tokenizers.", hint=hint)
    return spec, tensors


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else " x ".join(str(size) for size in shape)


def _fingerprint(source: Bundle, reference: str, calibration: Path | None, options: TuneOptions) -> str:
    """Identity of a run: one with another fingerprint starts anew."""
    from edgedistill.bundle.bundle import hash_file

    content = {
        "version": __version__,
        "bundle": bundle_identity(source).sha256,
        "reference": reference,
        "calibration": hash_file(calibration) if calibration is not None and calibration.is_file() else None,
        "options": options.to_dict(),
    }
    return "tune " + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _copy_files(source: Bundle, directory: Path) -> None:
    """The bundle's files; weights.bin is copied even if one is there, because it may be of another state."""
    for entry in source.manifest.files:
        shutil.copyfile(source.path / entry.name, directory / entry.name)


def _changed(stored: StoredArrays, before: Path, after: Path, arrays: dict[str, Any]) -> tuple[str, ...]:
    return tuple(name for name in arrays if stored.read(before, name).tobytes() != stored.read(after, name).tobytes())


def _check_agreement(first: float, deployed: float) -> None:
    """Refuse a bundle whose graph computes something else than the module that stood for it.

    Quantized activations move the KL by some thousandths; a folded or rotated weight that the module does not know
    would move it by orders of magnitude.
    """
    if abs(first - deployed) > _MISMATCH_KL * max(first, deployed) + 0.02:
        raise BundleError(
            f"The bundle computes something else than its arrays in the reference's architecture: a KL of "
            f"{deployed:.4f} was measured, {first:.4f} expected.",
            hint="Bundles with transformed weights cannot be tuned; export without the transformation.",
        )
