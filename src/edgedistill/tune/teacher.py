"""The reference's hidden states on the traces, from which its logits follow by one product.

Hidden states of a trace are computed once and kept: a few kilobytes a token, where logits would take hundreds. The
divergence of a bundle from them is that of verification, in ONNX Runtime's kernels along the path of a prefill.

Imports PyTorch: only functions may import this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch  # noqa: TID251

from edgedistill.errors import BundleError
from edgedistill.runtime.session import DecoderSession
from edgedistill.tune.options import Deployed
from edgedistill.verify.metrics.token_divergence import concatenate, divergence, summarise
from edgedistill.verify.models.torch_weights import build_module

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.progress import Progress
    from edgedistill.runtime.model import Model
    from edgedistill.verify.metrics.token_divergence import TokenDivergence

    Ids = npt.NDArray[np.int64]


class Teacher:
    """The reference in float32.

    Attributes:
        head: float32 [V, H].
        cap: Soft cap of the logits, or None.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        """Raises CheckpointError for weights that do not fit."""
        model = build_module(checkpoint, stream=False)
        self._decoder = model.get_decoder()
        self.head = model.get_output_embeddings().weight.detach()
        self.cap: float | None = getattr(model.config, "final_logit_softcapping", None)
        self._kept: dict[bytes, torch.Tensor] = {}

    def hidden(self, sequences: Sequence[Ids], *, keep: bool = True) -> list[torch.Tensor]:
        """Hidden states float32 [n, H] after the final norm, for each sequence of n tokens."""
        out = [self._kept.get(sequence.tobytes()) for sequence in sequences]
        missing = [i for i, states in enumerate(out) if states is None]
        if missing:
            ids = padded([sequences[i] for i in missing])
            with torch.no_grad():
                states = self._decoder(input_ids=ids, use_cache=False).last_hidden_state
            for row, i in enumerate(missing):
                own = states[row, : len(sequences[i])].clone()
                out[i] = own
                if keep:
                    self._kept[sequences[i].tobytes()] = own
        return [states for states in out if states is not None]

    def logits(self, hidden: torch.Tensor) -> npt.NDArray[np.float32]:
        """float32 [n, V] of hidden states [n, H]."""
        with torch.no_grad():
            raw = hidden @ self.head.T
            logits: Any = torch.tanh(raw / self.cap) * self.cap if self.cap else raw
        return np.asarray(logits.numpy(), dtype=np.float32)


def padded(sequences: Sequence[Ids]) -> torch.Tensor:
    """int64 [B, S], padded on the right with zeros: attention is causal, so that padding changes nothing before it."""
    out = np.zeros((len(sequences), max(len(sequence) for sequence in sequences)), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        out[row, : len(sequence)] = sequence
    return torch.from_numpy(out)


CHUNK = 128


def deployed_divergence(model: Model, teacher: Teacher, sequences: Sequence[Ids], progress: Progress) -> Deployed:
    """KL(reference || bundle) at every position of the sequences that has a next token.

    Raises:
        BundleError: A bundle of the fallback exporter.
        VerifyError: Logits that are not finite.
    """
    if not isinstance(model.session, DecoderSession):
        raise BundleError("The bundle was made by the fallback exporter, whose graph cannot be tuned.")
    progress.begin("measuring the bundle", sum(len(sequence) for sequence in sequences), "tokens")
    found: list[TokenDivergence] = []
    for sequence in sequences:
        (hidden,) = teacher.hidden([sequence])
        parts = []
        for scores in model.session.decoder().score(sequence[None, :-1], chunk=CHUNK):
            parts.append(divergence(teacher.logits(hidden[scores.columns]), scores.logits))
        found.append(concatenate(parts))
        progress.advance(len(sequence))
    progress.end()
    summary = summarise(found)
    interval = summary.kl.interval
    return Deployed(
        kl=summary.kl.value,
        low=summary.kl.value if interval is None else interval.low,
        high=summary.kl.value if interval is None else interval.high,
        p99=summary.quantiles["p99"].value,
        top_agreement=summary.top_agreement.value,
        positions=summary.positions,
    )
