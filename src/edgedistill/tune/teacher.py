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
from edgedistill.tune.decoder import ALL, Decoder
from edgedistill.tune.options import Deployed
from edgedistill.verify.metrics.token_divergence import concatenate, divergence, summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from edgedistill.architecture.spec import LogicalWeight, ModelSpec
    from edgedistill.checkpoint.types import TensorSource
    from edgedistill.progress import Progress
    from edgedistill.runtime.model import Model
    from edgedistill.verify.metrics.token_divergence import TokenDivergence

    Ids = npt.NDArray[np.int64]


class Teacher:
    """The reference in float32; the ``Weights`` of a ``Decoder``.

    Args:
        spec, weights: Its architecture.
        tensors: Its tensors, by the names of ``weights``.
        context: The bundle's.

    Attributes:
        head: float32 [V, H].
        cap: Soft cap of the logits, or None.
    """

    def __init__(
        self, spec: ModelSpec, weights: tuple[LogicalWeight, ...], tensors: TensorSource, *, context: int
    ) -> None:
        """Raises CheckpointError for weights that cannot be read."""
        self._weights = {weight.name: read_weight(tensors, weight) for weight in weights}
        self._decoder = Decoder(spec, self, context=context)
        self.head = self._weights["embed" if spec.tie_word_embeddings else "lm_head"]
        self.cap = spec.final_logit_softcapping
        self._kept: dict[bytes, torch.Tensor] = {}

    def linear(self, x: torch.Tensor, name: str, *, rows: slice = ALL, bias: bool = False) -> torch.Tensor:
        """See ``Weights``."""
        return torch.nn.functional.linear(
            x, self._weights[name][rows], self._weights[f"{name}.bias"][rows] if bias else None
        )

    def embedding(self, ids: torch.Tensor, name: str) -> torch.Tensor:
        """See ``Weights``."""
        return self._weights[name][ids]

    def vector(self, name: str) -> torch.Tensor:
        """See ``Weights``."""
        return self._weights[name]

    def hidden(self, sequences: Sequence[Ids], *, keep: bool = True) -> list[torch.Tensor]:
        """Hidden states float32 [n, H] after the final norm, for each sequence of n tokens."""
        out = [self._kept.get(sequence.tobytes()) for sequence in sequences]
        missing = [i for i, states in enumerate(out) if states is None]
        if missing:
            ids = padded([sequences[i] for i in missing])
            with torch.no_grad():
                states = self._decoder.hidden(ids)
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


def read_weight(tensors: TensorSource, weight: LogicalWeight) -> torch.Tensor:
    """A weight of the reference, float32 of its shape; raises CheckpointError as the source does."""
    out = np.empty(weight.shape, np.float32)
    start = 0
    for part in weight.parts:
        count = tensors.info(part).shape[0]
        out[start : start + count] = tensors.read_rows(part, 0, count)
        start += count
    return torch.from_numpy(out + np.float32(weight.offset) if weight.offset else out)


def padded(sequences: Sequence[Ids]) -> torch.Tensor:
    """int64 [B, S], padded on the right with zeros: no layer looks ahead, so that padding changes nothing before it."""
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
