"""How far a bundle is from the reference on given traces, in ONNX Runtime's kernels.

The bundle's logits come from the path of a prefill (as in ``verify``'s scoring), the reference's from its hidden
states; the divergence is computed by verification's own code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.errors import BundleError
from edgedistill.runtime.session import DecoderSession
from edgedistill.tune.options import Deployed
from edgedistill.verify.metrics.token_divergence import concatenate, divergence, summarise

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from edgedistill.progress import Progress
    from edgedistill.runtime.model import Model
    from edgedistill.tune.teacher import Teacher
    from edgedistill.verify.metrics.token_divergence import TokenDivergence

    Ids = npt.NDArray[np.int64]

CHUNK = 128


def deployed_divergence(model: Model, teacher: Teacher, sequences: Sequence[Ids], progress: Progress) -> Deployed:
    """KL(reference || bundle) at every position of the sequences that has a next token.

    Raises:
        BundleError: A bundle of the fallback exporter.
        VerifyError: Logits that are not finite.
    """
    if not isinstance(model.session, DecoderSession):
        raise BundleError("The bundle was made by the fallback exporter.")
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
