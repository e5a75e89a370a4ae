"""Options of an export: one frozen record that the command line, the Python API and the exporters share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from edgedistill.profile.profile import DEFAULT_PROFILE
from edgedistill.units import parse_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from edgedistill.export.mixed_precision.choose import Sensitivity, SizeBudget
    from edgedistill.profile.profile import Profile
    from edgedistill.profile.quality import Quality
    from edgedistill.quantize.gptq import GptqOptions
    from edgedistill.quantize.spec import WeightFormat
    from edgedistill.traces.traces import Traces

Exporter = Literal["auto", "own", "optimum"]
Layout = Literal["optimum", "transformers.js", "genai", "hub"]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Settings of an export; every field has the name of its command line option.

    Attributes:
        profile: Hardware profile: a name, the path of a TOML file, or a Profile.
        format: One weight format (``int8``, ``fp32``, ``int4-b128-sym``) instead of the profile's rules.
        quality: A named recipe instead of the profile's rules: ``small``, ``balanced`` or ``high`` (see
            ``profile.quality``); excludes ``format`` and budgets.
        block_size: Block size of every quantized format, instead of its own.
        context: Longest prompt plus output, in tokens; None: the profile's, at most the model's.
        kv_cache: Type of keys and values instead of the profile's: ``float32``, ``int8`` or ``int4``.
        prefill: Format of a second form of the layers' matrices, for prefill and scoring (``w8a8``).
        calibrate: Quantize the layers so that their outputs change least (method ``gptq`` instead of scale search).
            True: thoroughly, on the model's own replies; this takes minutes for 135 M parameters. None: quickly, on
            about two thousand tokens of built-in text, if weights have 6 bits or fewer and ``format`` names no method.
            False: not at all.
        calibration: Text file or traces to calibrate with; implies ``calibrate``.
        calibration_tokens: Number of calibration tokens.
        bits_per_weight: Choose every matrix's format by its sensitivity, so that the mean over all weights is at most
            this many bits. This and the next three exclude each other; each implies ``calibrate``.
        max_size: The same, for at most this size of all weights: bytes, or text such as ``900MB``.
        max_memory: The same, for at most this much memory in use with a full context: bytes, or text such as ``2GB``.
        max_kl: Choose the smallest formats that are predicted to stay within this KL divergence, in nats per token.
        sensitivity: ``measured`` for every matrix, ``estimated`` from some of them, or ``auto``, by the model's size.
        gptq: Options of the solver; None: ``quantize.gptq.THOROUGH``, or ``QUICK`` for a quick calibration.
        exporter: ``own`` (the native graph builder), ``optimum`` (the fallback), or ``auto``: the native one if it
            knows the architecture.
        adapter: PEFT LoRA directory to merge.
        revision: Branch, tag or commit on the Hub.
        offline: Never touch the network.
        check: Open the finished bundle and decode a few tokens before it is moved to its final path.
        distance: Compare the finished bundle with the original on 512 tokens of held-out text (with ``check``): the KL
            divergence and the share of equal top tokens, for manifest and model card.
        verify: Run a short verification afterwards, and record its outcome in the manifest and the model card.
        reference: Compare with this reference, too, in that short verification.
        keep_quantization: Store matrices of a quantized source with its codes and scales, if a format of the bundle can
            hold them. None: if the profile chooses the formats and has as many bits or more; True: wherever possible;
            False: quantize again.
        allow_unused: Export even if the checkpoint has tensors that its config does not account for.
        layout: Write a directory that another program opens instead of a bundle: ``optimum``, ``transformers.js``,
            ``genai``, or ``hub`` (the layout of transformers.js with the bundle in a folder).
        force: Replace an existing bundle.
    """

    profile: str | Path | Profile = DEFAULT_PROFILE
    format: str | WeightFormat | None = None
    quality: Quality | None = None
    block_size: int | None = None
    context: int | None = None
    kv_cache: str | None = None
    prefill: str | WeightFormat | None = None
    calibrate: bool | None = None
    calibration: str | Path | Traces | None = None
    calibration_tokens: int = 16_384
    bits_per_weight: float | None = None
    max_size: int | str | None = None
    max_memory: int | str | None = None
    max_kl: float | None = None
    sensitivity: Sensitivity = "auto"
    gptq: GptqOptions | None = None
    exporter: Exporter = "auto"
    adapter: str | Path | None = None
    revision: str | None = None
    offline: bool = False
    check: bool = True
    distance: bool = True
    verify: bool = True
    reference: str | Path | None = None
    keep_quantization: bool | None = None
    allow_unused: bool = False
    layout: Layout | None = None
    force: bool = False

    @property
    def budget(self) -> SizeBudget | None:
        """The budget within which formats are chosen; raises UsageError for two of them, or one out of range."""
        if all(v is None for v in (self.bits_per_weight, self.max_size, self.max_memory, self.max_kl)):
            return None
        from edgedistill.export.mixed_precision.choose import SizeBudget

        size, memory = (parse_bytes(v) if isinstance(v, str) else v for v in (self.max_size, self.max_memory))
        return SizeBudget(self.bits_per_weight, size, self.max_kl, memory)

    @property
    def calibrated(self) -> bool:
        """Whether the export needs calibration data."""
        return bool(self.calibrate) or self.calibration is not None or self.budget is not None

    @property
    def thorough(self) -> bool:
        """Whether the user requested calibration; an export that cannot do the quick one goes on without it."""
        return self.calibrated and (self.gptq is None or self.gptq.sequential)

    @property
    def traces(self) -> Traces | None:
        """The calibration data; None if nothing is calibrated. Raises TypeError if it has not been read yet."""
        if not self.calibrated:
            return None
        from edgedistill.traces.traces import Traces

        if not isinstance(self.calibration, Traces):
            raise TypeError(f"calibration is {self.calibration!r}; the exporters expect Traces")
        return self.calibration

    @property
    def observed(self) -> Sequence[npt.NDArray[np.int64]] | None:
        """Token ids, int64 [n] each, on which ranges of activations, keys and values are recorded. None: text that the
        model writes, which shows outliers better than the built-in text of a quick calibration."""
        traces = self.traces
        return traces.sequences if traces is not None and self.thorough else None
