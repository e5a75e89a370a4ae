"""A second bundle that guesses tokens for another one: opened, compared, lent to one generation at a time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgedistill.bundle.bundle import TOKENIZER
from edgedistill.errors import UsageError
from edgedistill.runtime.sampling import Sampler
from edgedistill.runtime.speculate.draft_model import DraftModel, Pace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.runtime.decoder import Decoder
    from edgedistill.runtime.model import Model
    from edgedistill.runtime.optimum_session import OptimumDecoder
    from edgedistill.runtime.sampling import NoiseKey
    from edgedistill.runtime.settings import GenerationSettings


class DraftBundle:
    """The loaded draft of a model.

    Attributes:
        model: The draft.
    """

    def __init__(self, target: Model, draft: Model) -> None:
        """Use ``draft``, which is closed with this, for ``target``; raises UsageError if their tokens differ."""
        _require_same_tokens(target, draft)
        self.model = draft
        self._vocab_size = min(one.bundle.manifest.model.vocab_size for one in (target, draft))
        self._pace = Pace()

    @contextmanager
    def lent(self, settings: GenerationSettings, key: NoiseKey) -> Iterator[DraftModel]:
        """Guesses for one continuation that is drawn under ``settings`` with the noise of ``key``."""
        with self.model.decoder() as decoder:
            yield self.over(decoder, settings, key)

    def over(self, decoder: Decoder | OptimumDecoder, settings: GenerationSettings, key: NoiseKey) -> DraftModel:
        """The same over a decoder of ``model`` that the caller keeps."""
        return DraftModel(
            decoder,
            Sampler(settings, key, vocab_size=self._vocab_size),
            self._pace,
            vocab_size=self._vocab_size,
            limit=self.model.bundle.manifest.model.context_length,
            chunk=self.model.prefill_chunk,
        )

    def close(self) -> None:
        """Release the draft."""
        self.model.close()


def _require_same_tokens(target: Model, draft: Model) -> None:
    if target.bundle.read(TOKENIZER) == draft.bundle.read(TOKENIZER):
        return
    names = [model.bundle.path.name for model in (target, draft)]
    known, other = (model.tokenizer.get_vocab(with_added_tokens=True) for model in (target, draft))
    if known == other:
        return
    text, number = min(known.items() ^ other.items(), key=lambda item: (item[1], item[0]))
    raise UsageError(
        f"The draft {names[1]} has another tokenizer than {names[0]}: token {number} is {text!r} in one of them only.",
        hint="Use a bundle of the same family of models, or another quantization of the same one.",
    )
