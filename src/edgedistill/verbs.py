"""The verbs of the Python API: plain functions with typed keywords, which load what they need when they are called.

A keyword has the name of its command line option. Instead of keywords, a verb takes ``options=``, the frozen record
with the same fields. Both together are an error, since one of the two would be ignored.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from edgedistill.errors import UsageError
from edgedistill.extras import require_export

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgedistill.bundle.bundle import Check
    from edgedistill.comparison.options import CompareOptions
    from edgedistill.comparison.result import Comparison
    from edgedistill.export.mixed_precision.choose import Sensitivity
    from edgedistill.export.options import Exporter, ExportOptions, Layout
    from edgedistill.export.pipeline import ExportResult
    from edgedistill.planning.options import PlanOptions
    from edgedistill.planning.planner import PlanReport
    from edgedistill.profile.profile import Profile
    from edgedistill.profile.quality import Quality
    from edgedistill.progress import Progress
    from edgedistill.quantize.gptq import GptqOptions
    from edgedistill.quantize.spec import WeightFormat
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.settings import Numerics
    from edgedistill.traces.traces import Traces
    from edgedistill.trajectories.options import VoteRule
    from edgedistill.tune.options import TuneOptions, TuneResult
    from edgedistill.verify.cluster.client import Cluster
    from edgedistill.verify.gate.endpoints import Estimand
    from edgedistill.verify.models.torch_weights import Device
    from edgedistill.verify.options import AuditOptions, PresetName, VerifyOptions
    from edgedistill.verify.report.model import VerifyReport
    from edgedistill.verify.types import ProcedureName, Suite

__all__ = ["audit", "compare", "export", "open_bundle", "plan", "tune", "verify"]

Options = TypeVar("Options")
NO_MARGINS: Mapping[str, float] = MappingProxyType({})


def export(
    model: str | Path,
    out: str | Path,
    *,
    profile: str | Path | Profile = "laptop-cpu",
    format: str | WeightFormat | None = None,  # noqa: A002
    quality: Quality | None = None,
    block_size: int | None = None,
    context: int | None = None,
    kv_cache: str | None = None,
    prefill: str | WeightFormat | None = None,
    calibrate: bool | None = None,
    calibration: str | Path | Traces | None = None,
    calibration_tokens: int = 16_384,
    bits_per_weight: float | None = None,
    max_size: int | str | None = None,
    max_memory: int | str | None = None,
    max_kl: float | None = None,
    sensitivity: Sensitivity = "auto",
    gptq: GptqOptions | None = None,
    exporter: Exporter = "auto",
    adapter: str | Path | None = None,
    revision: str | None = None,
    offline: bool = False,
    check: bool = True,
    distance: bool = True,
    verify: bool = True,
    reference: str | Path | None = None,
    keep_quantization: bool | None = None,
    allow_unused: bool = False,
    layout: Layout | None = None,
    force: bool = False,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Export ``model`` to a quantized ONNX bundle at ``out``, and verify briefly how it answers.

    Args:
        model: Built-in name, local directory, GGUF file or Hub id.
        out: Bundle directory to make; must not exist, be empty, or hold a bundle and ``force`` be given.
        options: Instead of the keywords above; ``ExportOptions`` describes each of them.
        progress: Receiver of progress.

    Raises:
        EdgedistillError: Any problem with the input, the target or the budget; nothing half-written is left.
    """
    require_export("export")
    from edgedistill.export.options import ExportOptions
    from edgedistill.workflow.export import export as run

    return run(model, out, _chosen(ExportOptions, locals()), progress=progress)


def plan(
    model: str | Path,
    *,
    profile: str | Path | Profile | Sequence[str | Path | Profile] = "laptop-cpu",
    format: str | Sequence[str] | None = None,  # noqa: A002
    block_size: int | None = None,
    context: int | Sequence[int] | None = None,
    prompt_tokens: int | Sequence[int] | None = None,
    kv_cache: str | None = None,
    adapter: str | Path | None = None,
    revision: str | None = None,
    offline: bool = False,
    threads: int | None = None,
    measure: bool = True,
    remeasure: bool = False,
    options: PlanOptions | None = None,
    progress: Progress | None = None,
) -> PlanReport:
    """Predict size, memory and speed of bundles of ``model`` without making any.

    Args:
        model: As for ``export``.
        options: Instead of the keywords above; ``PlanOptions`` describes each of them.
        progress: Receives timed kernels.

    Raises:
        EdgedistillError: A model, profile, format or context that cannot be; not for what merely does not fit.
    """
    require_export("plan")
    from edgedistill.planning.options import PlanOptions
    from edgedistill.planning.planner import plan as run

    return run(model, _chosen(PlanOptions, locals()), progress=progress)


def compare(
    model: str | Path,
    *,
    format: str | Sequence[str] | None = None,  # noqa: A002
    profiles: Sequence[str] = (),
    profile: str | Profile = "laptop-cpu",
    context: int | None = None,
    kv_cache: str | None = None,
    adapter: str | Path | None = None,
    revision: str | None = None,
    offline: bool = False,
    tokens: str | Path | None = None,
    max_tokens: int = 2048,
    decode_tokens: int = 512,
    rounds: int = 3,
    prompt_tokens: int = 256,
    new_tokens: int = 64,
    seed: int = 0,
    keep: str | Path | None = None,
    options: CompareOptions | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Build bundles of ``model`` in several formats, and measure their divergence from fp32, speed, memory and size.

    Args:
        model: As for ``export``.
        options: Instead of the keywords above; ``CompareOptions`` describes each of them.
        progress: Receives everything that takes long.

    Raises:
        EdgedistillError: A model, format or setting that cannot be, or too little disk or memory for the reference.
    """
    require_export("compare")
    from edgedistill.comparison.options import CompareOptions
    from edgedistill.comparison.run import compare as run

    return run(model, _chosen(CompareOptions, locals()), progress=progress)


def tune(
    bundle: str | Path,
    out: str | Path,
    *,
    reference: str | Path | None = None,
    adapter: str | Path | None = None,
    calibration: str | Path | None = None,
    force: bool = False,
    steps: int | None = None,
    minutes: float | None = None,
    learning_rate: float = 3e-3,
    norm_rate: float = 3e-3,
    zero_point_rate: float = 0.0,
    on_policy: float = 0.0,
    redraw: int = 100,
    batch_tokens: int = 1024,
    sequences: int = 64,
    length: int = 512,
    seed: int = 0,
    warm_up: float = 0.05,
    clip: float = 1.0,
    evaluate_every: int = 25,
    patience: int = 6,
    held_out: float = 0.1,
    options: TuneOptions | None = None,
    progress: Progress | None = None,
) -> TuneResult:
    """Train scales, zero points, norms and biases of a bundle towards its original (extras: torch, export).

    Args:
        bundle: Quantized bundle; it is not changed, and codes and graph stay as they are.
        out: Bundle directory to make. An interrupted run with the same arguments is taken up.
        reference: The original: name, directory, GGUF file or Hub id; None: what the bundle's manifest names.
        adapter: PEFT LoRA directory to merge into the reference.
        calibration: Text or traces to train on; None: the reference's own replies to the built-in prompts.
        force: Replace an existing bundle at ``out``.
        options: Instead of the keywords from ``steps`` on; ``TuneOptions`` describes each of them.
        progress: Receiver of progress.

    Raises:
        MissingExtraError: PyTorch or the exporter's packages are not installed.
        EdgedistillError: A bundle that cannot be tuned, another original, or too little memory.
    """
    require_export("tune")
    from edgedistill.tune.options import TuneOptions
    from edgedistill.tune.pipeline import tune_bundle

    chosen = _chosen(TuneOptions, locals())
    return tune_bundle(
        bundle, out, reference=reference, adapter=adapter, calibration=calibration, options=chosen, force=force,
        progress=progress,
    )  # fmt: skip


def verify(
    bundle: str | Path,
    *,
    reference: str | Path,
    suite: str | Path | Suite = "arithmetic",
    preset: PresetName = "default",
    prompts: int | None = None,
    samples: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    max_new_tokens: int | None = None,
    thinking: bool | None = None,
    seed: int | None = None,
    numerics: Numerics | None = None,
    procedure: ProcedureName | None = None,
    trajectories: int | None = None,
    vote: VoteRule | None = None,
    alpha: float = 0.05,
    second_opinion: bool = False,
    sequential: bool = False,
    margins: Mapping[str, float] = NO_MARGINS,
    estimand: Estimand | None = None,
    same_settings: bool = False,
    time_budget: float | None = None,
    screen: bool | None = None,
    options: VerifyOptions | None = None,
    store: str | Path | None = None,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
    device: Device = "cpu",
) -> VerifyReport:
    """Compare a bundle with its reference, and decide whether it answers as well.

    Args:
        bundle: Bundle directory, or the address of an OpenAI-compatible server (``http://host:8000/v1``).
        reference: An fp32 bundle, ``hf`` or ``hf:CHECKPOINT`` (the original in PyTorch), a baseline file, or the
            address of a server. With a ``procedure`` both have to be bundles.
        suite: Name of a built-in suite, path of a file, or a suite.
        options: Instead of the keywords from ``preset`` to ``screen``; ``VerifyOptions`` describes each of them.
        store: Directory for samples: an interrupted run goes on from them, and a reference is sampled once. None keeps
            them in memory.
        progress: Receiver of progress.
        cluster: Its workers draw the samples of bundles; None: this machine. Not with a ``procedure``.
        device: Where PyTorch runs a reference ``hf``: ``cpu``, ``cuda`` or ``mps``.

    Raises:
        EdgedistillError: No verdict can be reached: a model that does not fit its reference, a suite or setting that
            cannot be, too little memory.
    """
    from edgedistill.verify.options import VerifyOptions
    from edgedistill.verify.run import verify as run
    from edgedistill.verify.run_procedures import verify_procedure

    chosen = _chosen(VerifyOptions, locals())
    kept = None if store is None else Path(store)
    if chosen.scored is None:
        return run(
            bundle, reference=reference, suite=suite, options=chosen, store=kept, progress=progress, cluster=cluster,
            device=device,
        )  # fmt: skip
    return verify_procedure(
        bundle, chosen.scored, reference=reference, suite=suite, options=chosen, store=kept, progress=progress,
        cluster=cluster,
    )  # fmt: skip


def audit(
    bundle: str | Path,
    *,
    suite: str | Path | Suite = "arithmetic",
    preset: PresetName = "default",
    prompts: int | None = None,
    samples: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    max_new_tokens: int | None = None,
    thinking: bool | None = None,
    seed: int | None = None,
    numerics: Numerics | None = None,
    procedure: ProcedureName | None = None,
    trajectories: int | None = None,
    vote: VoteRule | None = None,
    alpha: float = 0.05,
    second_opinion: bool = False,
    options: AuditOptions | None = None,
    store: str | Path | None = None,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
) -> VerifyReport:
    """Examine one bundle alone: what its samples support, collapse, paraphrases, a temperature sweep.

    Args:
        bundle, suite, store, progress, cluster: As for ``verify``.
        options: Instead of the keywords from ``preset`` to ``second_opinion``; ``AuditOptions`` describes each of them.

    Raises:
        EdgedistillError: As ``verify``.
    """
    from edgedistill.verify.options import AuditOptions
    from edgedistill.verify.run import audit as run
    from edgedistill.verify.run_procedures import verify_procedure

    chosen = _chosen(AuditOptions, locals())
    kept = None if store is None else Path(store)
    if chosen.scored is None:
        return run(bundle, suite=suite, options=chosen, store=kept, progress=progress, cluster=cluster)
    return verify_procedure(
        bundle, chosen.scored, suite=suite, options=chosen, store=kept, progress=progress, cluster=cluster
    )


def open_bundle(
    path: str | Path,
    *,
    threads: int | None = None,
    check: Check = "size",
    trusted: str | Path | None = None,
    reasoning_tags: Sequence[str] | None = None,
    template_vars: Mapping[str, Any] | None = None,
    draft: str | Path | None = None,
) -> Model:
    """Open the bundle at ``path`` and load its model.

    Args:
        path: Bundle directory; or a model (built-in name, checkpoint directory, GGUF file, Hub id), which is exported
            once into the user's cache (see ``workflow.by_name``), or a Hub id of a bundle, which is pulled once.
        threads: Overrides the profile's; 0 is one per physical core, and more than those are never used.
        check: ``size`` compares file sizes, ``full`` also SHA-256.
        trusted: File of the public key that must have signed the bundle; implies ``full``. Default: the one that
            ``EDGEDISTILL_TRUSTED_KEY`` names, if it is set.
        reasoning_tags: The texts that open and close reasoning, instead of those that the bundle knows.
        template_vars: Variables of the chat template, for every prompt.
        draft: A smaller bundle or model with the same tokenizer, which guesses tokens (see ``Model.draft_with``).

    Raises:
        BundleError: No bundle, a damaged one, one that is not signed by ``trusted``, or a newer schema.
        UsageError: ``reasoning_tags`` are not two different texts, or the draft has another tokenizer.
    """
    from edgedistill.runtime.model import open_bundle as run
    from edgedistill.workflow.by_name import bundle_of

    return run(
        bundle_of(path), threads=threads, check=check, trusted=trusted, reasoning_tags=reasoning_tags,
        template_vars=template_vars, draft=None if draft is None else bundle_of(draft),
    )  # fmt: skip


def _chosen(kind: type[Options], given: dict[str, Any]) -> Options:
    """The record of ``kind`` that the keywords in ``given`` make, or ``given["options"]``; UsageError for both."""
    keywords = kind(**{f.name: given[f.name] for f in dataclasses.fields(kind)})  # type: ignore[arg-type]
    options: Options | None = given["options"]
    if options is None:
        return keywords
    for f in dataclasses.fields(kind):  # type: ignore[arg-type]
        default = f.default if f.default_factory is dataclasses.MISSING else f.default_factory()
        if getattr(keywords, f.name) != default:
            raise UsageError(
                f"The keyword {f.name} and options= exclude each other.",
                hint=f"Change the options instead: dataclasses.replace(options, {f.name}=...)",
            )
    return options
