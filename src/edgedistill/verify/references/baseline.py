"""A baseline in the place of a model: its samples, and what it knows of their distributions."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from edgedistill.errors import VerifyError
from edgedistill.verify.references.baseline_file import REMAKE, Baseline
from edgedistill.verify.references.top_tokens import coarse_divergence
from edgedistill.verify.sampling.protocol import slices as cut

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from edgedistill.progress import Progress
    from edgedistill.runtime.batch.request import DrawSettings, SampleKey
    from edgedistill.verify.metrics.token_divergence import TokenDivergence
    from edgedistill.verify.sampling.protocol import SampledModel
    from edgedistill.verify.types import Drawn, Prompt

    Logits = npt.NDArray[np.float32]


class BaselineModel:
    """A baseline in the place of a model: gives out its samples, and what it knows of their distributions."""

    can_draw = True
    can_score = False
    score_rows = 8

    def __init__(self, baseline: Baseline) -> None:
        self.baseline = baseline
        self.identity = dataclasses.replace(baseline.identity, kind="baseline")

    @property
    def generation_defaults(self) -> dict[str, Any]:
        """The settings it was drawn with."""
        return self.baseline.settings.to_dict()

    @property
    def scored_keys(self) -> frozenset[SampleKey]:
        """The samples that ``compare`` knows distributions of."""
        return frozenset(self.baseline.tops)

    def draw(
        self,
        prompts: Sequence[Prompt],
        samples: int,
        settings: DrawSettings,
        *,
        done: Collection[SampleKey] = (),
        progress: Progress | None = None,
        first_index: int = 0,
    ) -> Iterator[Drawn]:
        """The stored samples; raises VerifyError for other settings, prompts it lacks, or more samples than it has."""
        self.baseline.check(settings=settings)
        wanted = [(p.id, i) for p in prompts for i in range(first_index, first_index + samples)]
        missing = next((key for key in wanted if key not in self.baseline.drawn), None)
        if missing is not None:
            raise VerifyError(
                f"the baseline has no sample {missing[1]} of `{missing[0]}`; it holds {self.baseline.samples} per "
                "prompt.",
                hint=f"Ask for fewer with --samples. {REMAKE}",
            )
        if progress is not None:
            progress.begin("reading the baseline", len(wanted), "items")
            progress.advance(len(wanted))
            progress.end()
        yield from (self.baseline.drawn[key] for key in wanted if key not in frozenset(done))

    def score(self, *_: object, **__: object) -> Iterator[Logits]:
        """Refused: it stores the most likely tokens only; see ``compare``."""
        raise VerifyError("a stored baseline cannot score tokens.", hint="Give the model itself as the reference.")

    def compare(
        self, q: SampledModel, prompt: Prompt, sequences: Sequence[Sequence[int]], *, thinking: bool | None = None
    ) -> list[TokenDivergence]:
        """Lower bounds of KL(baseline || q) on samples of the baseline (see the module).

        Raises:
            VerifyError: A sequence whose distributions are not stored (see ``scored_keys``).
        """
        stored = {
            self.baseline.drawn[key].token_ids: top for key, top in self.baseline.tops.items() if key[0] == prompt.id
        }
        out: list[TokenDivergence] = []
        for sequence in sequences:
            top = stored.get(tuple(sequence))
            if top is None:
                raise VerifyError(
                    f"the baseline stores no distributions for this sample of `{prompt.id}`; it has them for "
                    f"{len(stored)} samples of the prompt.",
                    hint="Compare on those, or make the baseline with more --scored-samples.",
                )
            parts = cut([len(sequence)], q.identity.vocab_size)
            out.append(coarse_divergence(top, q.score(prompt, [sequence], parts, thinking=thinking)))
        return out

    def close(self) -> None:
        """Nothing to release."""
