"""Sessions of graphs from the fallback exporter: one sequence at a time, the cache copied at every step.

Slower than ``session.py`` and behind the same interface: optimum's graphs return a new cache instead of writing into
a shared one, and logits for every position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from edgedistill.bundle.bundle import MODEL
from edgedistill.errors import BundleError, ContextLengthError
from edgedistill.runtime.binding import run_failure
from edgedistill.runtime.chunks import chunk_bounds
from edgedistill.runtime.decoder import InterruptedRunError, Scores
from edgedistill.runtime.session import SessionConfig, open_graph
from edgedistill.system.huge_pages import use_huge_pages_in_background

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from edgedistill.bundle.bundle import Bundle

    Ids = npt.NDArray[np.int64]
    Logits = npt.NDArray[np.float32]


class OptimumSession:
    """The loaded graph of a bundle with the ``optimum`` signature."""

    def __init__(self, bundle: Bundle, config: SessionConfig | None = None) -> None:
        """Load the graph of ``bundle``; raises BundleError if ONNX Runtime refuses it or its inputs are others."""
        self.config = config or SessionConfig()
        self.info = bundle.manifest.model
        with bundle.loading() as files:
            self.raw, self.threads = open_graph(files, MODEL, self.config)
        self.inputs = [value.name for value in self.raw.get_inputs()]
        self.outputs = [value.name for value in self.raw.get_outputs()]
        self.past = [name for name in self.inputs if name.startswith("past_key_values.")]
        missing = [
            n.replace("past_key_values", "present")
            for n in self.past
            if n.replace("past_key_values", "present") not in self.outputs
        ]
        if "input_ids" not in self.inputs or "logits" not in self.outputs or not self.past or missing:
            raise BundleError(f"{MODEL} is not a decoder with a KV cache.", hint="Export the bundle again.")
        use_huge_pages_in_background(bundle.size)

    def decoder(self) -> OptimumDecoder:
        """A decoder with an empty cache."""
        return OptimumDecoder(self)


class OptimumDecoder:
    """One sequence over an optimum graph; the interface of ``decoder.Decoder`` for a batch of one."""

    def __init__(self, session: OptimumSession) -> None:
        self.session = session
        info = session.info
        empty = np.zeros((1, info.num_key_value_heads, 0, info.head_dim), dtype=np.float32)
        self._past: dict[str, npt.NDArray[np.float32]] = dict.fromkeys(session.past, empty)
        self._tokens: list[int] = []
        self._exact_length = 0
        self._run_options = ort.RunOptions()

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return len(self._tokens)

    @property
    def kv_bytes(self) -> int:
        """Bytes of the cache."""
        return sum(array.nbytes for array in self._past.values())

    def cached(self, *, exact: bool) -> Ids:
        """Ids in the cache; ``exact``: only as far as every entry came from exact steps."""
        return np.asarray(self._tokens[: self._exact_length] if exact else self._tokens, dtype=np.int64)

    def feed(self, tokens: Sequence[int], *, exact: bool = False, logits: bool = True) -> Logits:
        """Append tokens; float32 [V] after the last one (empty without ``logits``).

        ``exact`` computes a lone token together with the one before, which puts it on the numerical path of a prefill.
        """
        before = self.length
        if exact and len(tokens) == 1 and before:
            previous = self._tokens[-1]
            exact_before = self._exact_length
            self.truncate(before - 1)
            self._exact_length = min(exact_before, before)
            tokens = [previous, *tokens]
        out = self._run(list(tokens))
        if exact and self._exact_length >= before:
            self._exact_length = self.length
        return out[-1] if logits else out[:0]

    def feed_all(self, tokens: Sequence[int], *, exact: bool = False) -> Logits:
        """Append two tokens or more; float32 [tokens, V] after each of them."""
        before = self.length
        out = self._run(list(tokens))
        if exact and self._exact_length >= before:
            self._exact_length = self.length
        return out

    def score(self, ids: Ids, *, chunk: int) -> Iterator[Scores]:
        """Append the ids int64 [1, S] and give the logits of all positions in slices."""
        for start, stop in chunk_bounds(ids.shape[1], max(2, chunk)):
            logits = self._run(ids[0, start:stop].tolist())
            columns = np.arange(start, stop, dtype=np.int64)
            yield Scores(np.zeros_like(columns), columns, logits)

    def truncate(self, length: int) -> None:
        """Give tokens back."""
        if not 0 <= length <= self.length:
            raise ValueError(f"the sequence has {self.length} tokens and cannot be cut to {length}")
        self._past = {name: array[:, :, :length] for name, array in self._past.items()}
        del self._tokens[length:]
        self._exact_length = min(self._exact_length, length)

    def rewind(self, length: int) -> int:
        """``truncate``, and ``length``."""
        self.truncate(length)
        return length

    def interrupt(self) -> None:
        """End the run in progress from another thread, and refuse further ones until ``resume``."""
        self._run_options.terminate = True

    def resume(self) -> None:
        """Allow runs again after ``interrupt``."""
        self._run_options.terminate = False

    def _run(self, tokens: list[int]) -> Logits:
        """One run; float32 [S, V]. The cache changes only if it succeeds."""
        past, total = self.length, self.length + len(tokens)
        if total > self.session.info.context_length:
            raise ContextLengthError(
                f"{total} tokens are needed, the context holds {self.session.info.context_length}.",
                hint="Shorten the prompt or export with a larger --context.",
            )
        feeds: dict[str, npt.NDArray[Any]] = {
            "input_ids": np.asarray([tokens], dtype=np.int64),
            "attention_mask": np.ones((1, total), dtype=np.int64),
            "position_ids": np.arange(past, total, dtype=np.int64)[None],
            **self._past,
        }
        feeds = {name: value for name, value in feeds.items() if name in self.session.inputs}
        try:
            values = self.session.raw.run(None, feeds, self._run_options)
        except Exception as error:  # onnxruntime's exceptions share no base but this
            if self._run_options.terminate:
                raise InterruptedRunError from error
            raise run_failure(error) from error
        outputs = dict(zip(self.session.outputs, values, strict=True))
        self._past = {name: outputs[name.replace("past_key_values", "present")] for name in self._past}
        self._tokens += tokens
        logits: Logits = outputs["logits"][0]
        return logits
