"""The fallback exporter with the interface that the pipeline expects (see ``native.OwnExporter``).

It checks this machine's memory and disk before, calls ``trace.export_with_optimum``, and checks the profile's limits on
the result.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from edgedistill.bundle import bundle as files
from edgedistill.bundle.staging import free_disk
from edgedistill.errors import BudgetError, UsageError
from edgedistill.export.manifest import Made
from edgedistill.export.optimum import trace as optimum
from edgedistill.export.plan import choose_context
from edgedistill.system.cgroup import available_memory

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.bundle.manifest import Manifest
    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.export.options import ExportOptions
    from edgedistill.profile.profile import Profile
    from edgedistill.progress import Progress

_GB = 1e9
# The whole model in float32, its traced copy, and the graph that is being quantized.
COPIES_IN_MEMORY = 3
COPIES_ON_DISK = 2


class FallbackExporter:
    """One export through optimum-onnx, which holds the whole model in float32 in memory; see ``trace``."""

    def __init__(self, checkpoint: Checkpoint, profile: Profile, options: ExportOptions | None = None) -> None:
        """Check that optimum-onnx can export the model as requested.

        Raises:
            MissingExtraError: optimum-onnx is not installed.
            UnsupportedModelError: It does not know the architecture either.
            UsageError: A context longer than the model's; a quantized KV cache, W8A8 or a second form for prefill,
                which its graphs cannot have.
        """
        if profile.kv_cache.is_quantized:
            raise UsageError(
                f"The fallback exporter writes a float32 KV cache; {profile.kv_cache.dtype} was requested.",
                hint="Export this model with --kv-cache float32.",
            )
        if any(fmt.is_w8a8 for fmt in (profile.weights.default, *(rule.format for rule in profile.weights.rules))):
            raise UsageError(
                "The fallback exporter has weight-only formats; W8A8 was requested.",
                hint="Export this model with --format int8.",
            )
        if profile.weights.prefill is not None:
            raise UsageError(
                "The fallback exporter makes one graph; a second form for prefill was requested.",
                hint="Leave `weights.prefill` out of the profile, and --prefill off the command line.",
            )
        optimum.check_supported(checkpoint.config)
        self._checkpoint = checkpoint
        self.notes = checkpoint.notes
        self._allow_unused = options is not None and options.allow_unused
        self._profile = profile
        longest = checkpoint.config.get("max_position_embeddings")
        self._context_length = None if options is None else options.context
        if isinstance(longest, int):
            choose_context(longest, profile, self._context_length)
        self._float_bytes = 4 * sum(checkpoint.tensors.info(name).size for name in checkpoint.tensors.names())

    def check_budget(self, out: Path, *, trial: bool) -> None:
        """Raise BudgetError for a model that does not fit this machine's memory and disk while it is traced."""
        del trial  # tracing needs more than running
        memory, disk = COPIES_IN_MEMORY * self._float_bytes, COPIES_ON_DISK * self._float_bytes
        available, free = available_memory(), free_disk(out)
        if memory > available:
            raise BudgetError(
                f"The fallback exporter loads the whole model: about {memory / _GB:.1f} GB of memory are needed, "
                f"{available / _GB:.1f} GB are available.",
                hint="Use a machine with more memory. (Families that edgedistill exports itself are streamed and need "
                "about 1 GB: edgedistill families)",
            )
        if disk > free:
            raise BudgetError(
                f"Tracing needs about {disk / _GB:.1f} GB of disk; {free / _GB:.1f} GB are free.",
                hint="Free space, or choose another place with -o.",
            )

    def fingerprint(self, source_hash: str) -> str:
        """A hash that no earlier run had: a trace cannot be resumed."""
        return hashlib.sha256(f"{source_hash} {time.time_ns()}".encode()).hexdigest()

    def make(self, directory: Path, *, resume: bool, progress: Progress) -> Made:
        """Trace and quantize into ``directory``.

        Raises:
            BudgetError: The result is larger than the profile's target allows.
            UnsupportedModelError, CheckpointError: See ``trace.export_with_optimum``.
        """
        del resume
        begun = time.perf_counter()
        weights = self._profile.weights
        result = optimum.export_with_optimum(
            self._checkpoint,
            directory,
            default=weights.default,
            rules=weights.rules,
            progress=progress,
            allow_unused=self._allow_unused,
        )
        made = sum((directory / name).stat().st_size for name in (files.MODEL, files.WEIGHTS))
        if made > self._profile.target.disk_gb * _GB:
            raise BudgetError(
                f"The bundle has {made / _GB:.2f} GB; the profile {self._profile.name} allows "
                f"{self._profile.target.disk_gb:g} GB.",
                hint="Choose a profile for a larger machine or --format int4-b128.",
            )
        return Made(
            geometry=result,
            planned=result.planned,
            context_length=choose_context(result.max_position_embeddings, self._profile, self._context_length),
            signature="optimum",
            predicted={},
            weights_seconds=time.perf_counter() - begun,
            reused_weights=0,
        )

    def quantize_cache(self, directory: Path, manifest: Manifest, sequences: object, progress: Progress) -> Manifest:
        """Nothing to do: a quantized cache was refused from the start."""
        del directory, sequences, progress
        return manifest
