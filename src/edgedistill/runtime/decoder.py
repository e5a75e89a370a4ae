"""Steps of a batch of sequences over one KV cache.

A step takes rows of unequal length: every row has its own past and its own number of new tokens, some none. It writes
a few integers into arrays that are bound once per shape (``binding``) and runs.

Which numerical path a position takes depends on what is computed with it: a token by itself runs other kernels than
one among several, and the results may differ in the last bits or, with quantized activations, visibly. Wide steps agree
bit for bit in any chunking, batch or padding, with two exceptions that the kernels make. Attention goes over a row's
new tokens in blocks, and a block with a single token in it is computed like a token by itself. Some matrix kernels take
rows in pairs, and an odd one at the end likewise. ``exact`` steps avoid both: the previous token is computed again in
front, or a column of padding added behind, until no token is alone. Such steps reproduce a prefill of the whole text.
With states a lone token gets one beside it that does not count, in room beyond the context (``CacheGeometry.spare``).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from edgedistill.errors import ContextLengthError
from edgedistill.runtime.binding import BoundRun, run_failure
from edgedistill.runtime.chunks import chunk_bounds, score_slices
from edgedistill.runtime.state import INTERVAL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from edgedistill.runtime.kv_cache import KVCache, LoadedGraph

    Ids = npt.NDArray[np.int64]
    Logits = npt.NDArray[np.float32]

SCORE_BYTES = 32 << 20
_KEPT_SHAPES = 6  # a step, the widths of runs with guesses (speculate/control.py), a chunk of a prompt
# The attention kernel's block of query rows is twice the head size, or less where the level 2 cache is small: a
# multiple of 16 for all head sizes and caches met. The self-test checks the property itself.
_QUERY_BLOCK = 16
_TAIL = 8
"""Last tokens of a prompt, before which states are kept: the next prompt mostly begins with all but the last few."""


class InterruptedRunError(Exception):
    """A run that was ended by ``interrupt``; the cache is as before it."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Logits of some positions: ``rows`` and ``columns`` int64 [n] say which, ``logits`` float32 [n, V]."""

    rows: Ids
    columns: Ids
    logits: Logits


class Decoder:
    """Steps of one batch of sequences. Not for use by several threads at once, except ``interrupt``."""

    def __init__(self, session: LoadedGraph, cache: KVCache) -> None:
        self.session = session
        self.cache = cache
        self._shapes: dict[tuple[int, int, bool], BoundRun] = {}
        self._generation = cache.generation
        self._exact_length = 0
        self._spare = session.geometry.spare
        self._run_options = ort.RunOptions()
        # Its default; onnxruntime looks for it at every run, and not finding it is an exception that takes 0.1 ms.
        self._run_options.add_run_config_entry("gpu_graph_id", "0")

    # ---- one sequence ---------------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        """Tokens in the cache (of the first row)."""
        return int(self.cache.lengths[0])

    @property
    def kv_bytes(self) -> int:
        """Bytes allocated for the cache."""
        return self.cache.nbytes

    def cached(self, *, exact: bool) -> Ids:
        """Ids in the cache of the first row; ``exact``: only as far as every entry came from exact steps."""
        return self.cache.tokens[0, : min(self.length, self._exact_length) if exact else self.length]

    def feed(self, tokens: Sequence[int], *, exact: bool = False, logits: bool = True) -> Logits:
        """Append tokens to a single sequence and return float32 [V] after the last one.

        Args:
            tokens: At least one id.
            exact: Reproduce a prefill of the whole sequence bit for bit (see above).
            logits: False leaves the head out and returns an empty array.

        The result is a view that the next step overwrites. Raises ContextLengthError, GenerationError and
        InterruptedRunError; the cache is then as before.
        """
        width, past = len(tokens), self.length
        if width == 1 and not exact and logits and past < self.cache.capacity - self._spare:
            return self._feed_one(tokens[0], past)
        self._check_context(past + width)
        if self._spare:
            return self._feed_states(tokens, exact=exact, logits=logits)
        columns = width
        if exact and width % 2 == 1:
            room = past + width < self.session.geometry.limit
            if past:
                tokens = [int(self.cache.tokens[0, past - 1]), *tokens]
                columns, width, past = width + 1, width + 1, past - 1
            elif width > 1 and (width % _QUERY_BLOCK == 1 or not room):
                self.feed(tokens[:2], exact=True, logits=False)
                return self.feed(tokens[2:], exact=True, logits=logits)
            else:
                columns = width + room
        shape = self._shape(columns, (2 if exact else 1) if logits else 0, past, exact=exact)
        shape.ids[0, :width] = tokens
        shape.seqlens_k[0] = past + width - 1
        shape.query_seqlens[0] = width
        shape.logit_index[0] = width - 1
        self._run(shape)
        self.cache.tokens[0, past : past + width] = tokens
        self.cache.lengths[0] = past + width
        if exact and self._exact_length >= past:
            self._exact_length = past + width
        return shape.first

    def _feed_one(self, token: int, past: int) -> Logits:
        """The step that decoding consists of: nothing but a few integers and the run."""
        shape = self._shape(1, 1, past, exact=False)
        shape.ids[0, 0] = token
        shape.seqlens_k[0] = past
        shape.query_seqlens[0] = 1
        shape.logit_index[0, 0] = 0
        shape.state_seqlens[0] = 1
        self._run(shape)
        self.cache.tokens[0, past] = token
        self.cache.lengths[0] = past + 1
        if self._spare and (past + 1) % INTERVAL == 0:
            self.cache.states.keep(0, past + 1)
        return shape.first

    def _feed_states(self, tokens: Sequence[int], *, exact: bool, logits: bool) -> Logits:
        """``feed`` for a model with states; a copy of them is left where a prompt's next reader may well go back to."""
        if exact and logits and len(tokens) > 2 * _TAIL:
            self._feed_states(tokens[:-_TAIL], exact=True, logits=False)
            tokens = tokens[-_TAIL:]
        past = self.length
        columns = np.full((1, int(logits)), len(tokens) - 1, dtype=np.int64)
        found: Logits = self.step(np.asarray([tokens], dtype=np.int64), None, columns, exact=exact)[0]
        if exact and self._exact_length >= past:
            self._exact_length = self.length
        return found[0] if logits else found

    def feed_all(self, tokens: Sequence[int], *, exact: bool = False) -> Logits:
        """Append two tokens or more to a single sequence and return float32 [tokens, V] after each; see ``feed``."""
        past, width = self.length, len(tokens)
        if width % 2 or self._spare:
            columns = np.arange(width, dtype=np.int64)[None]
            logits: Logits = self.step(np.asarray([tokens], dtype=np.int64), None, columns, exact=exact)[0]
        else:  # what guesses consist of: nothing but a few integers and the run
            self._check_context(past + width)
            shape = self._shape(width, width, past, exact=exact)
            shape.ids[0] = tokens
            shape.seqlens_k[0] = past + width - 1
            shape.query_seqlens[0] = width
            shape.logit_index[0] = range(width)
            self._run(shape)
            self.cache.tokens[0, past : past + width] = tokens
            self.cache.lengths[0] = past + width
            logits = shape.logits[0]
        if exact and self._exact_length >= past - width % 2:
            self._exact_length = past + width
        return logits

    def restore(self, tokens: Ids, entries: Sequence[npt.NDArray[Any]], *, exact: bool) -> None:
        """Append entries that were stored before; ``exact``: they came from exact steps. See ``KVCache.append``."""
        before = self.length
        self.cache.append(0, tokens, entries)
        if exact and self._exact_length >= before:
            self._exact_length = self.length

    def truncate(self, length: int, *, row: int = 0) -> None:
        """Give tokens back: ``row`` keeps its first ``length``, of which some may have to be computed again."""
        self._exact_length = min(self._exact_length, self.cache.truncate(row, length))
        self.complete(row, length)

    def complete(self, row: int, length: int) -> None:
        """Compute what ``row`` lacks of its first ``length`` tokens, whose ids it has: from the state before on."""
        left = int(self.cache.lengths[row])
        if left >= length:
            return
        self.cache.reserve(min(length + self._spare, self.session.geometry.limit))
        one = self if self.cache.batch == 1 else Decoder(self.session, self.cache.rows(row, row + 1))
        again = self.cache.tokens[row, left:length].tolist()
        for start, stop in chunk_bounds(len(again), 256):
            one.feed(again[start:stop], exact=True, logits=False)

    def rewind(self, length: int) -> int:
        """Give tokens of the first row back, down to ``length`` or below, and compute none; how many are left."""
        self._exact_length = min(self._exact_length, self.cache.truncate(0, length))
        return self.length

    # ---- batches --------------------------------------------------------------------------------------------

    def step(
        self,
        ids: Ids,
        valid: npt.ArrayLike | None = None,
        logit_index: Ids | None = None,
        *,
        exact: bool = False,
    ) -> Logits:
        """Append to every row its first ``valid`` tokens and return logits of chosen positions.

        Args:
            ids: int64 [B, S], right-padded with any ids.
            valid: [B] new tokens per row, 0 for an idle row; default: S for all.
            logit_index: int64 [B, P], positions within S; default: each row's last valid one (P = 1).
            exact: Reproduce prefills of the rows bit for bit.

        Returns:
            float32 [B, P, V], a view that the next step overwrites; garbage for idle rows.

        Raises:
            ContextLengthError: If a row would outgrow the context.
            ValueError: Shapes that do not fit.
        """
        batch, width = ids.shape
        counts = np.full(batch, width) if valid is None else np.asarray(valid, dtype=np.int64)
        if batch != self.cache.batch or counts.shape != (batch,) or counts.min() < 0 or counts.max() > width:
            raise ValueError(f"ids {ids.shape} and valid {counts.tolist()} do not fit a batch of {self.cache.batch}")
        index = np.maximum(counts - 1, 0)[:, None] if logit_index is None else logit_index
        lengths = self.cache.lengths
        self._check_context(int((lengths + counts).max()))
        limit = self.session.geometry.limit
        lone = exact & ((counts % _QUERY_BLOCK == 1) | ((batch == 1) & (counts % 2 == 1)))
        full = int((lengths + counts).max()) == limit  # where the padding that makes a step even finds no room
        beside = np.zeros(batch, dtype=np.int64)
        if self._spare:
            beside[lone & (counts > 0)] = 1
            ids = np.pad(ids, ((0, 0), (0, int(beside.max())))) if (counts + beside).max() > width else ids
            lone = np.zeros_like(lone)
        if (lone & (lengths == 0) & (counts > 1) & ((counts % _QUERY_BLOCK == 1) | full)).any():
            return self._step_by_columns(ids, counts, index, [2], exact=True)
        again = lone & (lengths > 0)
        if again.any():
            previous = self.cache.tokens[np.arange(batch), np.maximum(lengths - 1, 0)]
            shifted = np.concatenate([previous[:, None], ids], axis=1)
            ids = np.where(again[:, None], shifted, np.pad(ids, ((0, 0), (0, 1))))
        if exact and ids.size % 2 == 1:
            ids = np.pad(ids, ((0, 0), (0, 1)))
        pasts = lengths - again
        # The kernel writes whole rows: the padding needs room, too. Near the end of the context there may be none.
        if int((pasts + ids.shape[1]).max()) > limit + self._spare:
            return self._step_by_rows(ids, counts, again, index, exact=exact)
        positions = index.shape[1] + (exact and index.size % 2 == 1)
        shape = self._shape(ids.shape[1], positions, int(pasts.max()), exact=exact)
        shape.ids[:] = ids
        shape.logit_index[:] = index[:, -1:]
        shape.logit_index[:, : index.shape[1]] = index
        shape.logit_index[:] += again[:, None]
        # A row without past and new tokens is refused: it gets one token that does not count.
        fed = np.where((pasts == 0) & (counts == 0), 1, counts + again + beside)
        shape.state_seqlens[:] = counts
        shape.query_seqlens[:] = fed
        shape.seqlens_k[:] = pasts + fed - 1
        self._run(shape)
        rows = np.flatnonzero(counts)
        if ids.shape[1] == 1:
            self.cache.tokens[rows, pasts[rows]] = ids[rows, 0]
        else:
            for row in rows:
                new = counts[row] + again[row]
                self.cache.tokens[row, pasts[row] : pasts[row] + new] = ids[row, :new]
        lengths += counts
        if self._spare:
            self.cache.states.keep_after(counts, lengths)
        return shape.logits[:, : index.shape[1]]

    def score(
        self, ids: Ids, valid: npt.ArrayLike | None = None, *, wanted: npt.NDArray[np.bool_] | None = None, chunk: int
    ) -> Iterator[Scores]:
        """Append tokens and give the logits after each wanted position, in slices that bound the memory.

        Args:
            ids: int64 [B, S], right-padded.
            valid: [B] tokens per row; default: S.
            wanted: bool [B, S]; default: every valid position.
            chunk: Most tokens per row in one run (at least 2).

        The steps are exact: the logits are those of a prefill. Slices come in order of the columns.
        """
        batch, width = ids.shape
        counts = np.full(batch, width) if valid is None else np.asarray(valid, dtype=np.int64)
        mask = np.arange(width)[None, :] < counts[:, None]
        if wanted is not None:
            mask = mask & wanted
        most = max(2, SCORE_BYTES // (batch * self.session.info.vocab_size * 4))
        for start, stop in score_slices(mask, chunk, most):
            part = mask[:, start:stop]
            # Rounded up, or every slice of an irregular mask would make a shape of its own.
            positions = max(2, min(most, -(-int(part.sum(axis=1).max()) // 8) * 8))
            index = np.zeros((batch, positions), dtype=np.int64)
            rows, columns = np.nonzero(part)
            slots = part.cumsum(axis=1)[rows, columns] - 1
            index[rows, slots] = columns
            logits = self.step(ids[:, start:stop], np.clip(counts - start, 0, stop - start), index, exact=True)
            if len(rows):
                yield Scores(rows, columns + start, logits[rows, slots])

    def select(self, rows: Sequence[int]) -> Decoder:
        """A decoder over copies of ``rows`` (repeat one to expand a prefix to a batch)."""
        return Decoder(self.session, self.cache.select(rows))

    def compact(self, rows: Sequence[int], batch: int) -> None:
        """Go on with ``rows`` alone, as the first of ``batch``; see ``KVCache.compact``."""
        self.cache.compact(rows, batch)
        self._exact_length = 0

    # ---- running --------------------------------------------------------------------------------------------

    def interrupt(self) -> None:
        """End the run in progress from another thread, and refuse further ones until ``resume``."""
        self._run_options.terminate = True

    def resume(self) -> None:
        """Allow runs again after ``interrupt``."""
        self._run_options.terminate = False

    def _check_context(self, tokens: int) -> None:
        limit = self.session.geometry.limit
        if tokens > limit:
            raise ContextLengthError(
                f"{tokens} tokens are needed, the context holds {limit}.",
                hint="Shorten the prompt or export with a larger --context.",
            )

    def _shape(self, width: int, positions: int, past: int, *, exact: bool) -> BoundRun:
        # Exact steps reproduce a prefill, whatever their width: they take the form of the weights that prefills take.
        wide = self.session.wide is not self.session.raw and (exact or width > 1)
        if past + width > self.cache.capacity:
            # Bound values keep the buffers that they alias: the cache would exist twice while it grows.
            self._shapes.clear()
        self.cache.reserve(min(past + width, self.session.geometry.limit))  # beyond it there is spare room alone
        if self._generation != self.cache.generation:
            self._shapes.clear()
            self._generation = self.cache.generation
        shape = self._shapes.get((width, positions, wide))
        if shape is None:
            while len(self._shapes) >= _KEPT_SHAPES:
                self._shapes.pop(next(iter(self._shapes)))
            try:
                shape = BoundRun(self.session, self.cache, width, positions, wide)
            except MemoryError as error:
                raise run_failure(error) from error
            self._shapes[width, positions, wide] = shape
            if positions and width <= 2:
                self.session.decoding()
        return shape

    def _run(self, shape: BoundRun) -> None:
        # A lone token's run is short: no need to end it midway, and ONNX Runtime looks into run options at a cost.
        if shape.total_width == 1 and self._run_options.terminate:
            raise InterruptedRunError
        options = None if shape.total_width == 1 else self._run_options
        try:
            shape.raw.run_with_iobinding(shape.binding, options)
        except Exception as error:  # onnxruntime's exceptions share no base but this
            self.cache.restore()
            self._exact_length = min(self._exact_length, self.length)
            if self._run_options.terminate:
                raise InterruptedRunError from error
            raise run_failure(error) from error

    def _step_by_columns(self, ids: Ids, counts: Ids, index: Ids, cuts: list[int], *, exact: bool) -> Logits:
        """One step as several, cut at the given columns."""
        out = np.empty((*index.shape, self.session.info.vocab_size), dtype=np.float32)
        for start, stop in itertools.pairwise([0, *cuts, ids.shape[1]]):
            width = stop - start
            logits = self.step(
                ids[:, start:stop], np.clip(counts - start, 0, width), np.clip(index - start, 0, width - 1), exact=exact
            )
            here = (index >= start) & (index < stop)
            out[here] = logits[here]
        return out

    def _step_by_rows(self, ids: Ids, counts: Ids, again: npt.NDArray[np.bool_], index: Ids, *, exact: bool) -> Logits:
        """One step as one per row, each without padding: slow, for batches with a row near the end of the context."""
        out = np.empty((*index.shape, self.session.info.vocab_size), dtype=np.float32)
        for row in np.flatnonzero(counts).tolist():
            one = self.select([row])
            first = int(again[row])  # the step of the single row pairs by itself
            new = ids[row : row + 1, first : first + counts[row]]
            out[row] = one.step(new, None, np.minimum(index[row : row + 1], counts[row] - 1), exact=exact)[0]
            self.cache.put_rows([row], one.cache)
        return out
