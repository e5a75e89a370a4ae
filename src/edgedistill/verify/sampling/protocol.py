"""The interface of a model in verification, which bundles, originals in PyTorch, servers and baselines implement."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from edgedistill.errors import VerifyError
from edgedistill.progress import NullProgress
from edgedistill.runtime.chunks import chunk_bounds

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import numpy as np
    import numpy.typing as npt

    from edgedistill.progress import Progress
    from edgedistill.runtime.batch.request import DrawSettings, SampleKey
    from edgedistill.runtime.batch.scheduler import Cancel
    from edgedistill.verify.types import Drawn, ModelIdentity, Prompt, Shipped

    Logits = npt.NDArray[np.float32]

SCORE_BYTES = 32 << 20
"""Largest number of bytes of logits in one slice of scoring."""


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of teacher-forced scoring: the positions [start, stop) of every sequence that is long enough."""

    start: int
    stop: int


Missing = tuple["Prompt", tuple[int, ...]]
"""A prompt, and the indices of its samples that are still to be drawn."""


class SampledModel(ABC):
    """A model that draws replies, or has stored ones. Close it, or use it as a context manager.

    Attributes:
        identity: Of the model.
        can_score: Whether it can compute logits for any tokens.
        cancel: Checked while it draws: once it is set, replies that are not complete are discarded.
    """

    identity: ModelIdentity
    can_score = False
    cancel: Cancel | None = None

    @property
    def generation_defaults(self) -> dict[str, Any]:
        """Its own sampling settings (generation.json), for ``DrawSettings.resolve``; empty if none are known."""
        return {}

    @property
    def shipped(self) -> Shipped | None:
        """Its template, end tokens and sampling defaults; None if not known."""
        return None

    @property
    def can_draw(self) -> bool:
        """Whether it can draw samples: False for an original that does not fit into memory."""
        return True

    @property
    def score_rows(self) -> int:
        """Largest number of sequences that it scores at a time."""
        return 1

    @property
    def activity(self) -> str:
        """Label for progress while it draws."""
        return f"sampling {self.identity.name}"

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` is set."""
        return self.cancel is not None and self.cancel.is_set()

    def draw(
        self,
        prompts: Sequence[Prompt],
        samples: int,
        settings: DrawSettings,
        *,
        done: Collection[SampleKey] = (),
        progress: Progress | None = None,
    ) -> Iterator[Drawn]:
        """Draw the samples 0 to ``samples - 1`` of every prompt, except those ``done``.

        Samples are yielded in the order in which they end. Progress counts samples ("items"), those done included. It
        may be stopped at any time (Ctrl-C, ``close`` of the generator): the samples yielded so far are complete.

        Raises:
            ContextLengthError: A prompt that leaves no room for an answer.
            GenerationError: Logits that are not finite; out of memory.
            VerifyError: A baseline that lacks samples, or has them for other settings.
        """
        left = [(p, tuple(i for i in range(samples) if (p.id, i) not in done)) for p in prompts]
        missing = [(prompt, indices) for prompt, indices in left if indices]
        progress = progress or NullProgress()
        progress.begin(self.activity, len(prompts) * samples, "items")
        progress.advance(len(prompts) * samples - sum(len(indices) for _, indices in missing))
        for drawn in self.draw_missing(missing, settings):
            yield drawn
            progress.advance(1)
        progress.end()

    @abstractmethod
    def draw_missing(self, missing: Sequence[Missing], settings: DrawSettings) -> Iterator[Drawn]:
        """Draw these samples; see ``draw``."""

    def score(
        self, prompt: Prompt, sequences: Sequence[Sequence[int]], slices: Sequence[Slice], *, thinking: bool | None
    ) -> Iterator[Logits]:
        """Logits before each token of the sequences, given the prompt and the tokens before it (teacher forcing).

        Yields per slice float32 [n, V] for its n positions, sequence by sequence; valid until the next slice. Position
        t is the distribution that token t was drawn from. At most ``score_rows`` sequences.

        Raises:
            VerifyError: The model gives no logits (``can_score``).
        """
        del sequences, slices, thinking
        raise VerifyError(
            f"{self.identity.name} cannot score the tokens after `{prompt.id}`: it gives no logits.",
            hint="Give the model itself as the reference.",
        )

    def close(self) -> None:  # noqa: B027  # a stored model holds nothing
        """Release memory and files."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def slices(lengths: Sequence[int], vocab_size: int, *, widest: int = 256) -> list[Slice]:
    """Cut the positions of sequences of these lengths so that no slice's logits exceed ``SCORE_BYTES``.

    A slice is at least 2 positions wide, unless there is only one: a single position is computed by other kernels.
    """
    width = max(2, min(widest, SCORE_BYTES // (4 * vocab_size * max(1, len(lengths)))))
    return [Slice(a, b) for a, b in chunk_bounds(max(lengths, default=0), width)]


def require_same_vocabulary(first: ModelIdentity, second: ModelIdentity) -> None:
    """Raises VerifyError unless both models have the same tokenizer and vocabulary size, as far as these are known."""
    if not first.tokenizer_sha256 or not second.tokenizer_sha256:
        return
    if first.tokenizer_sha256 != second.tokenizer_sha256:
        raise VerifyError(
            f"{first.name} and {second.name} have different tokenizers ({first.tokenizer_sha256[:12]}… and "
            f"{second.tokenizer_sha256[:12]}…); their tokens cannot be compared.",
            hint="Take the model that the bundle was exported from as its reference.",
        )
    if first.vocab_size != second.vocab_size:
        raise VerifyError(
            f"{first.name} has a vocabulary of {first.vocab_size} tokens, {second.name} one of {second.vocab_size}; "
            "their distributions cannot be compared.",
            hint="Take the model that the bundle was exported from as its reference.",
        )


def require_same_source(reference: ModelIdentity, bundle: ModelIdentity) -> None:
    """Raises VerifyError for two models whose sources are known and differ.

    Models of one family share their tokenizer; the names of their sources tell them apart.
    """
    original, source = reference.details.get("source", ""), bundle.details.get("source", "")
    if original and source and original != source:
        raise VerifyError(
            f"The reference {reference.name} comes from {original}, the bundle {bundle.name} from {source}; "
            "expected the same original.",
            hint="Take the model that the bundle was exported from as its reference.",
        )
