"""A base checkpoint's tensors with a LoRA adapter merged while its rows are read.

LoRA (Hu et al. 2021, arXiv:2106.09685): W' = W + scaling * B @ A. DoRA (Liu et al. 2024, arXiv:2402.09353): W' times
m / |W'|, with a magnitude m for every output (PEFT ``tuners/lora/dora.py``). Only the rows that are asked for are
multiplied; A and B are small.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.checkpoint.grid import grid_of, read_grid
from edgedistill.checkpoint.normalize import EMBEDDING, HEAD
from edgedistill.checkpoint.safetensors import check_rows, missing_tensor
from edgedistill.checkpoint.types import TensorInfo
from edgedistill.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.checkpoint.grid import Grid, Scales, ZeroPoints
    from edgedistill.checkpoint.safetensors import SafetensorsSource
    from edgedistill.checkpoint.types import TensorSource

    Floats = npt.NDArray[np.float32]

_SLICE = 4 << 20
_OTHER_BASE = "Use the base model that the adapter was trained on."


@dataclass(frozen=True, slots=True)
class Delta:
    """The change of one matrix: adapter tensors A [r, in] and B [out, r], and ``scaling``.

    ``embedding``: A and B are transposed, as the rows are inputs. ``transposed``: the matrix is stored [in, out].
    ``magnitude``: DoRA's, [out].
    """

    a: str
    b: str
    scaling: float
    embedding: bool = False
    transposed: bool = False
    magnitude: str | None = None


@dataclass(slots=True)
class Changes:
    """What an adapter does, by the name of the base's tensor.

    Attributes:
        deltas: Low-rank changes of matrices.
        biases: Adapter tensors [out] that are added to biases, and their factors.
        tokens: Adapter tensors [n, in] that replace the rows of n tokens, and their ids.
        replaced: Adapter tensors in place of the base's.
        left_out: Modules of the adapter that belong to what is no part of the text model.
    """

    deltas: dict[str, Delta] = field(default_factory=dict)
    biases: dict[str, tuple[str, float]] = field(default_factory=dict)
    tokens: dict[str, tuple[str, tuple[int, ...]]] = field(default_factory=dict)
    replaced: dict[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    @property
    def merged(self) -> set[str]:
        """Names of the tensors that the adapter adds to or multiplies."""
        return {*self.deltas, *self.biases, *self.tokens}

    @property
    def names(self) -> set[str]:
        """Names of all changed tensors."""
        return self.merged | set(self.replaced)


class LoraSource:
    """The base's tensors with the adapter merged, computed in float32."""

    def __init__(
        self,
        base: TensorSource,
        adapter: SafetensorsSource,
        changes: Changes,
        facts: dict[str, Any],
        *,
        copied_embedding: bool = False,
    ) -> None:
        """``copied_embedding``: the adapter's embedding is a copy beside the base's, not a new content of it.

        Raises CheckpointError where the adapter does not fit the base.
        """
        self._base = base
        self._adapter = adapter
        self._changes = changes
        self._facts = facts
        self._last: tuple[str, Floats, Floats] | None = None
        self._norms: dict[str, Floats] = {}
        self._splits_embedding = copied_embedding or EMBEDDING in changes.deltas
        self._names = dict.fromkeys((*base.names(), *changes.names))
        if self.unties_head:
            self._names[HEAD] = None
        self._check()

    @property
    def path(self) -> Path:
        """The adapter's weights file."""
        return self._adapter.paths[0]

    @property
    def unties_head(self) -> bool:
        """The merged model has an lm_head of its own where the base shares it with the embedding.

        PEFT trains a copy of an embedding (``modules_to_save``) or adds to what it gives (LoRA): a head that shares
        the base's embedding goes on with that.
        """
        return HEAD not in self._base.names() and (HEAD in self._names or self._splits_embedding)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user about what is not merged."""
        if not (left := self._changes.left_out):
            return ()
        return (f"{len(left)} tensors of the adapter change no part of the text model and are left out: {left[0]}.",)

    def describe(self) -> dict[str, Any]:
        """Facts for the manifest: name, rank, alpha, base model, number of changed tensors."""
        return dict(self._facts)

    def names(self) -> Iterable[str]:
        """All tensor names."""
        return self._names.keys()

    def info(self, name: str) -> TensorInfo:
        """Header of ``name``; raises CheckpointError if there is none."""
        if name in self._changes.replaced:
            found = self._adapter.info(self._changes.replaced[name])
            return TensorInfo(name, found.shape, found.dtype)
        if name not in self._names:
            raise missing_tensor(name, self._names)
        found = self._base.info(self._stored(name))
        return TensorInfo(name, found.shape, found.dtype)

    def read_rows(self, name: str, start: int, stop: int) -> Floats:
        """Rows ``start:stop`` of the merged tensor as float32. Raises what the base and the adapter raise."""
        check_rows(self.info(name), start, stop)
        changes = self._changes
        delta = changes.deltas.get(name)
        rows = self._unscaled(name, start, stop)
        if name in changes.biases:
            stored, factor = changes.biases[name]
            rows += np.float32(factor) * self._adapter.read_rows(stored, start, stop)
        if name in changes.tokens:
            stored, ids = changes.tokens[name]
            inside = [(place, index - start) for place, index in enumerate(ids) if start <= index < stop]
            for place, row in inside:
                rows[row] = self._adapter.read_rows(stored, place, place + 1)[0]
        if delta is None or delta.magnitude is None:
            return rows
        magnitude = self._adapter.read_rows(delta.magnitude, 0, self._adapter.info(delta.magnitude).shape[0])
        if delta.embedding or delta.transposed:
            rows *= magnitude / _lengths(name, self._column_norms(name))
        else:
            rows *= (magnitude[start:stop] / _lengths(name, np.linalg.norm(rows, axis=1)))[:, None]
        return rows

    def grid(self, name: str) -> Grid | None:
        """The base's grid, for a tensor that the adapter leaves as it is."""
        return None if name in self._changes.names else grid_of(self._base, self._stored(name))

    def read_grid(self, name: str, start: int, stop: int) -> tuple[Scales, ZeroPoints]:
        """See ``GridSource``."""
        return read_grid(self._base, self._stored(name), start, stop)

    def close(self) -> None:
        """Close base and adapter."""
        self._adapter.close()
        self._base.close()

    def _stored(self, name: str) -> str:
        """Name in the base: a head that the base shares with its embedding starts out as the embedding."""
        return EMBEDDING if name == HEAD and self.unties_head else name

    def _unscaled(self, name: str, start: int, stop: int) -> Floats:
        """Rows of the base, or of what replaces them, with the low-rank change, before DoRA's magnitudes."""
        if name in self._changes.replaced:
            rows = self._adapter.read_rows(self._changes.replaced[name], start, stop)
        else:
            rows = self._base.read_rows(self._stored(name), start, stop)
        if (delta := self._changes.deltas.get(name)) is None:
            return rows
        a, b = self._factors(name, delta)
        change = a[:, start:stop].T @ b.T if delta.embedding or delta.transposed else b[start:stop] @ a
        change *= np.float32(delta.scaling)
        rows += change
        return rows

    def _column_norms(self, name: str) -> Floats:
        """Length of every column float32 [columns] of a matrix whose outputs are its columns."""
        if name not in self._norms:
            count, columns = self.info(name).shape
            step = max(1, _SLICE // columns)
            squares = np.zeros(columns)
            for start in range(0, count, step):
                rows = self._unscaled(name, start, min(start + step, count)).astype(np.float64)
                squares += np.einsum("ij,ij->j", rows, rows)
            self._norms[name] = np.sqrt(squares).astype(np.float32)
        return self._norms[name]

    def _factors(self, name: str, delta: Delta) -> tuple[Floats, Floats]:
        """A and B, kept for the tensor that is being read. Threads may load them twice, never wrongly."""
        last = self._last
        if last is None or last[0] != name:
            a = self._adapter.read_rows(delta.a, 0, self._adapter.info(delta.a).shape[0])
            b = self._adapter.read_rows(delta.b, 0, self._adapter.info(delta.b).shape[0])
            self._last = last = (name, a, b)
        return last[1], last[2]

    def _check(self) -> None:
        """Raise CheckpointError for tensors that the base does not have, and for shapes that do not fit it."""
        for name in self._changes.replaced:
            self._check_replacement(name)
        for name, delta in self._changes.deltas.items():
            self._check_delta(name, delta)
        for name, (stored, _) in self._changes.biases.items():
            self._check_shape(name, stored, self._base_shape(name))
        for name, (stored, ids) in self._changes.tokens.items():
            count, *rest = self._base_shape(name)
            self._check_shape(name, stored, (len(ids), *rest))
            if not all(0 <= index < count for index in ids):
                raise CheckpointError(f"The adapter trains token {max(ids)} of {name}, which has {count} rows.",
                                      hint=_OTHER_BASE)  # fmt: skip

    def _check_delta(self, name: str, delta: Delta) -> None:
        shape = self.info(name).shape if name in self._changes.replaced else self._base_shape(name)
        a, b = self._adapter.info(delta.a).shape, self._adapter.info(delta.b).shape
        whole = a[1:] + b[:1] if delta.embedding or delta.transposed else b[:1] + a[1:]
        if len(a) != 2 or len(b) != 2 or a[0] != b[1] or whole != shape:
            raise CheckpointError(
                f"The adapter changes {name} by {list(b)} x {list(a)}, but the tensor has shape {list(shape)}.",
                hint=_OTHER_BASE,
            )
        if delta.magnitude is not None:
            self._check_shape(name, delta.magnitude, b[:1])

    def _check_shape(self, name: str, stored: str, expected: tuple[int, ...]) -> None:
        found = self._adapter.info(stored).shape
        if found != expected:
            raise CheckpointError(
                f"The adapter changes {name} by {stored.rpartition('.')[2]} of shape {list(found)}; {list(expected)} "
                "is expected.",
                hint=_OTHER_BASE,
            )

    def _check_replacement(self, name: str) -> None:
        shape = self.info(name).shape
        if name not in self._base.names() and name != HEAD:
            raise CheckpointError(f"The adapter replaces {name}, which the base model does not have.", hint=_OTHER_BASE)
        expected = self._base_shape(name)
        # More rows than before: tokens were added in training.
        grown = name in (EMBEDDING, HEAD) and shape[1:] == expected[1:]
        if shape != expected and not grown:
            raise CheckpointError(
                f"The adapter replaces {name} by shape {list(shape)}, the base model has {list(expected)}.",
                hint=_OTHER_BASE,
            )

    def _base_shape(self, name: str) -> tuple[int, ...]:
        try:
            return self._base.info(self._stored(name)).shape
        except CheckpointError as error:
            raise CheckpointError(
                f"The adapter changes {name}, which the base model does not have.", hint=_OTHER_BASE
            ) from error


def _lengths(name: str, lengths: Floats) -> Floats:
    """``lengths`` of a matrix' outputs; raises CheckpointError where DoRA would divide by 0 or by what is no number."""
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise CheckpointError(
            f"DoRA divides the outputs of {name} by their lengths, one of which is 0 or not finite.",
            hint="PEFT gives no number there either: use another adapter or base model.",
        )
    return lengths
