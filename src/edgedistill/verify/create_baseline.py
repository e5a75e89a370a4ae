"""Makes a baseline (samples and scores of a reference, saved to a file) and checks whether one fits a bundle."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bundle.bundle import Bundle
from edgedistill.errors import UsageError
from edgedistill.progress import NullProgress
from edgedistill.verify.cluster.model import spread_over
from edgedistill.verify.models.bundle import bundle_identity
from edgedistill.verify.options import AuditOptions
from edgedistill.verify.references.baseline import BaselineModel
from edgedistill.verify.references.baseline_file import SCORED_SAMPLES, Baseline
from edgedistill.verify.references.open import open_reference
from edgedistill.verify.sampling.protocol import require_same_source
from edgedistill.verify.stages import Run
from edgedistill.verify.suites.registry import load_suite

if TYPE_CHECKING:
    from edgedistill.progress import Progress
    from edgedistill.verify.cluster.client import Cluster
    from edgedistill.verify.models.torch_weights import Device
    from edgedistill.verify.types import Suite


def make_baseline(
    model: str | Path,
    *,
    suite: str | Path | Suite = "arithmetic",
    options: AuditOptions | None = None,
    scored_samples: int = SCORED_SAMPLES,
    store: Path | None = None,
    progress: Progress | None = None,
    cluster: Cluster | None = None,
    device: Device = "cpu",
) -> Baseline:
    """Draw the samples of a reference for a baseline file.

    Args:
        model: A bundle, or ``hf:CHECKPOINT``.
        suite: Name, path or Suite.
        options: As for an audit.
        scored_samples: Samples of each prompt whose token probabilities are kept.
        store: Directory where samples are kept, so that an interrupted run continues; None: not at all.
        progress: Receives samples.
        cluster: Draws the samples if it is given and ``model`` is a bundle.
        device: Of a reference in PyTorch.

    Raises:
        UsageError: ``model`` is a baseline.
        EdgedistillError: See ``run.verify``.
    """
    options = options or AuditOptions()
    loaded = load_suite(suite) if isinstance(suite, str | Path) else suite
    progress = progress or NullProgress()
    with closing(open_reference(model, model, device=device)) as reference:
        if isinstance(reference, BaselineModel):
            raise UsageError(
                f"{model} is already a baseline; expected a model.", hint="Give the model that it was made from."
            )
        prompts = options.choose(loaded)
        settings = options.draw_settings(loaded.sampling, reference.generation_defaults)
        run = Run(loaded, settings, options, store, progress)
        run.audit_sampler(reference, prompts)
        drawn = run.draw(spread_over(cluster, reference), prompts)
        return Baseline.create(
            reference,
            loaded,
            prompts,
            settings,
            drawn,
            scored_samples=scored_samples,
            asked=tuple(options.overrides),
            progress=progress,
        )


def check_baseline(baseline: Baseline, bundle: str | Path) -> None:
    """Raises VerifyError unless a baseline has the tokenizer and the original of a bundle."""
    identity = bundle_identity(Bundle.open(bundle, check="full"))
    baseline.check(tokenizer_sha256=identity.tokenizer_sha256)
    require_same_source(baseline.identity, identity)
