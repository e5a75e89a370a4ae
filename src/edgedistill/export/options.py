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
        profile: Hardware profile: name, TOML path or Profile.
        format: One weight format (``int8``, ``fp32``, ``int4-b128-sym``) instead of the profile's rules.
        quality: A named recipe instead of the profile's rules: ``small``, ``balanced`` or ``high`` (see
            ``profile.quality``); excludes ``format`` and budgets.
        block_size: Replaces the block size of every quantized format.
        context: Longest prompt plus output, in tokens; None: the profile's, at most the model's.
        kv_cache: Type of keys and values instead of the profile's: ``float32``, ``int8`` or ``int4``.
        prefill: Format of a second form of the layers' matrices, for prefill and scoring (``w8a8``).
        calibrate: Quantize the layers so that their outputs change least (method ``gptq`` instead of scale search).
            True: thoroughly, on the model's own replies; takes minutes for 135 M parameters. None: quickly, on two
            thousand tokens of built-in text, where weights have 6 bits or fewer and ``format`` names no method. False:
            not at all.
        calibration: Text file or traces to calibrate with; implies ``calibrate``.
        calibration_tokens: Number of tokens of either.
        bits_per_weight: Choose every matrix's format by its sensitivity, so that all take this many bits per weight
            together. This and the next three exclude each other; each implies ``calibrate``.
        max_size: The same, within this size of all weights: bytes, or text such as ``900MB``.
        max_memory: The same, so that the bundle in use takes at most this much memory with a full context.
        max_kl: The smallest bundle that is predicted to stay within this divergence, in nats.
        sensitivity: ``measured`` for every matrix, ``estimated`` from some of them, or by the model's size (``auto``).
        gptq: How calibration solves; None: ``GptqOptions()``, and ``quantize.gptq.QUICK`` for the quick one.
        exporter: ``own`` graph builder, ``optimum`` fallback, or ``auto``: own where the architecture is known.
        adapter: PEFT LoRA directory to merge.
        revision: Branch, tag or commit on the Hub.
        offline: Never touch the network.
        check: Open the finished bundle and decode a few tokens before it gets its name.
        distance: Compare the finished bundle with the original on 512 tokens of held-out text (with ``check``): the KL
            divergence and the share of equal top tokens, for manifest and model card.
        verify: Ask the bundle some questions afterwards, and record the outcome in its manifest and model card.
        reference: Let that short verification compare with this reference too.
        keep_quantization: Store matrices of a quantized source with its codes and scales where one of our formats holds
            them. None: where the profile decides the formats and asks for as many bits or more; True: everywhere that
            it can be; False: quantize anew.
        allow_unused: Export although the checkpoint has tensors that its config does not account for.
        layout: Make what another program opens instead of a bundle: ``optimum``, ``transformers.js``, ``genai``, or
            ``hub`` (that of transformers.js, and the bundle in a folder).
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
        """The budget that formats are chosen within; raises UsageError for two of them, or one out of range."""
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
        """Whether calibration was asked for; the quick one is no reason to refuse anything."""
        return self.calibrated and (self.gptq is None or self.gptq.sequential)

    @property
    def traces(self) -> Traces | None:
        """The calibration data once it is there; None where nothing is calibrated."""
        if not self.calibrated:
            return None
        from edgedistill.traces.traces import Traces

        if not isinstance(self.calibration, Traces):
            raise TypeError(f"calibration is {self.calibration!r}; the exporters expect Traces")
        return self.calibration

    @property
    def observed(self) -> Sequence[npt.NDArray[np.int64]] | None:
        """Token ids on which ranges of activations, keys and values are observed; None: text that the model writes,
        which shows outliers better than the built-in text of a quick calibration."""
        traces = self.traces
        return traces.sequences if traces is not None and self.thorough else None
