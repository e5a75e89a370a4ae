"""Opens a reference by name: the original in PyTorch, another bundle, a server, or a baseline file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bundle.bundle import MANIFEST, Bundle
from edgedistill.errors import VerifyError
from edgedistill.verify.models.endpoint import EndpointModel, is_address

if TYPE_CHECKING:
    from edgedistill.verify.models.torch_weights import Device
    from edgedistill.verify.sampling.protocol import SampledModel

HF = "hf"


def open_reference(
    reference: str | Path,
    bundle: str | Path,
    *,
    memory: int | None = None,
    stream: bool | None = None,
    device: Device = "cpu",
) -> SampledModel:
    """Open what ``reference`` names.

    Args:
        reference: ``hf``: the original that the bundle was exported from; ``hf:NAME``: a checkpoint by built-in name,
            directory, GGUF file or hub name; ``http://...``: an OpenAI-compatible server; a directory: a bundle; a
            file: a baseline.
        bundle: The bundle that is verified.
        memory: Bytes for samples of a reference bundle.
        stream: For ``hf``: load the layers one at a time as they are computed; None: if the original would not fit into
            the free memory.
        device: For ``hf``: device of PyTorch.

    Raises:
        VerifyError: There is no such reference, or the bundle does not know where its original is.
        MissingExtraError: ``hf`` without PyTorch.
        BundleError, CheckpointError, ModelNotFoundError: See there.
    """
    text = str(reference)
    if text == HF or text.startswith(f"{HF}:"):
        from edgedistill.verify.models.torch import TorchModel

        name = text.removeprefix(HF).removeprefix(":") or original_name(Bundle.open(bundle))
        return TorchModel.open(name, stream=stream, device=device)
    if is_address(text):
        return EndpointModel(text)
    path = Path(text)
    if path.is_dir() and (path / MANIFEST).is_file():
        from edgedistill.verify.models.bundle import open_sampled

        return open_sampled(path, memory=memory)
    if path.is_file():
        from edgedistill.verify.references.baseline import BaselineModel
        from edgedistill.verify.references.baseline_file import Baseline

        return BaselineModel(Baseline.load(path))
    if path.is_dir():
        raise VerifyError(
            f"The reference {path} is a directory without a {MANIFEST}, so it is not a bundle.",
            hint=f"For a checkpoint write: --reference hf:{path}",
        )
    raise VerifyError(
        f"The reference {text} was not found; expected a bundle, a baseline, hf, hf:CHECKPOINT, or http://...",
        hint="For the original of the bundle write: --reference hf",
    )


def original_name(bundle: Bundle) -> str:
    """Name by which ``open_checkpoint`` finds the bundle's source; raises VerifyError if the bundle has no such
    name."""
    source = bundle.manifest.source
    kind, name = source.get("kind"), str(source.get("name", ""))
    if source.get("adapter"):
        raise VerifyError(
            f"{bundle.path.name} was exported with an adapter, which `hf` alone does not name.",
            hint="Merge it into a checkpoint, or export an fp32 bundle as the reference.",
        )
    if kind in ("builtin", "hub"):
        return name
    raise VerifyError(
        f"{bundle.path.name} was exported from {name or 'an unknown place'}, whose path a bundle does not keep.",
        hint=f"Say where it lies: --reference hf:PATH-OF-{name or 'THE-ORIGINAL'}",
    )
