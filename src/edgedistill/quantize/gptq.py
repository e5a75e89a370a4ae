"""Quantization by the error of the layer's output: GPTQ, then alternating refits of scales and codes.

For a layer y = W x the error of a quantized Q on calibration inputs is tr((W - Q) H (W - Q)^T) with the second moments
H = E[x x^T]: rows are independent, columns are not. Four steps, each of which can be checked against a direct solution:

1. *Target.* Where the inputs x' of the quantized model differ from those of the original, the best matrix for x' is
   W + W E[(x - x') x'^T] H^-1 with H = E[x' x'^T] (asymmetric calibration; GPTAQ, arXiv 2504.02692).
2. *GPTQ* (arXiv 2210.17323): columns are rounded one after another, and the error of each is spread over those that
   follow through the Cholesky factor of H^-1. Scales and zero points of a block are searched when its turn comes.
3. *Scales.* For fixed codes the best scales of a row solve a small linear system (the blocks' codes are the features).
4. *Codes.* For fixed scales each code moves to its best value given all others (cyclic coordinate descent; QuantEase,
   arXiv 2309.01885). 3 and 4 alternate. Scales are those that the file will hold, so their rounding is made up for.

Everything is stored transposed, [K, rows]: a column of W is then contiguous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.errors import CheckpointError
from edgedistill.quantize.blockwise import choose_blocks
from edgedistill.quantize.search import search_tile
from edgedistill.quantize.spec import BLOCK_SIZES
from edgedistill.quantize.storage import load_scales, store_codes, store_scales, store_zero_points

if TYPE_CHECKING:
    import numpy.typing as npt

    from edgedistill.quantize.spec import WeightFormat

    Floats = npt.NDArray[np.float32]

_CHUNK = 128
"""Columns between two updates of all others: inside it updates are cheap, outside they are one matrix product."""
_TRIANGLE = 128
"""Rows of a triangle that is inverted directly."""
_RIDGE = 1e-4
"""Added to the diagonal of the normal equations of scales, relative to it: blocks whose codes are all zero."""


@dataclass(frozen=True, slots=True)
class GptqOptions:
    """How to solve.

    Attributes:
        damping: Added to the diagonal of H, relative to its mean; grows tenfold until the factorisation succeeds.
        act_order: Round the columns of largest input first (scales are then searched before, not on the way).
        sweeps: Alternations of scales and codes after GPTQ.
        shift: Share of the way from W to the target of asymmetric calibration, 0 to 1.
        shrink: Share of the off-diagonal moments that is dropped, 0 to 1: what few tokens say of pairs of inputs is
            noise in part (the linear shrinkage of Ledoit and Wolf, doi:10.1016/S0047-259X(03)00096-4, with a fixed
            share and the diagonal as target). 1: errors are weighted by the inputs' mean squares alone.
        group: Most columns whose errors are spread over one another; larger matrices are cut into equal groups, each
            solved with its own moments, which bounds time and memory. 0: all.
        sequential: Inputs are those that the layers before make once they are quantized, a pass for every stage of a
            layer. False: those of the original, one pass for a layer, several times faster.
    """

    damping: float = 0.01
    act_order: bool = True
    sweeps: int = 2
    shift: float = 1.0
    shrink: float = 0.0
    group: int = 0
    sequential: bool = True

    def groups(self, columns: int) -> list[slice]:
        """Cuts of so many columns, at multiples of the largest block size."""
        if not self.group or columns <= self.group:
            return [slice(0, columns)]
        step = -(-columns // -(-columns // self.group))
        step = -(-step // BLOCK_SIZES[-1]) * BLOCK_SIZES[-1]
        return [slice(start, min(start + step, columns)) for start in range(0, columns, step)]


THOROUGH = GptqOptions(shrink=0.2, shift=0.5)
"""For ``--calibrate``. With all that some 16,000 tokens say of pairs of inputs, and all of the way to the target of
asymmetric calibration, their noise is followed: what results is farther from the original on every kind of text."""

QUICK = GptqOptions(sweeps=0, shrink=0.2, group=2048, sequential=False)
"""For the quick calibration of every export: one pass of the original over few tokens, no refits."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Second moments of a layer's inputs on calibration data.

    Attributes:
        second: H = E[x' x'^T], float64 or float32 [K, K].
        cross: E[(x - x') x'^T], [K, K]; None: the inputs of the original and of the quantized model are the same.
        tokens: How many tokens they are means of.
    """

    second: npt.NDArray[np.floating]
    cross: npt.NDArray[np.floating] | None
    tokens: int


@dataclass(frozen=True, slots=True)
class _Factor:
    """Moments of the columns ``cut``, factored in ``order`` (None: as they come): inv(H) = upper^T upper."""

    cut: slice
    order: npt.NDArray[np.intp] | None
    upper: npt.NDArray[np.float64]
    upper32: Floats

    def columns(self) -> npt.NDArray[np.intp]:
        """The columns of the matrix in the order of ``upper``."""
        found = np.arange(self.cut.start, self.cut.stop)
        return found if self.order is None else found[self.order]

    @classmethod
    def of(
        cls,
        second: npt.NDArray[np.floating],
        cut: slice,
        diagonal: npt.NDArray[np.float64],
        ridge: float,
        options: GptqOptions,
    ) -> _Factor:
        """Raises LinAlgError where the damped moments are not positive definite."""
        damped = (1 - options.shrink) * np.asarray(second[cut, cut], np.float64)
        np.fill_diagonal(damped, diagonal + ridge)
        order = np.argsort(-diagonal, kind="stable") if options.act_order else None
        if order is not None:
            damped = damped[np.ix_(order, order)]
        # H = R R^T with R upper triangular is the Cholesky factor of H with rows and columns reversed; then
        # inv(H) = U^T U with U = inv(R): row j of U spreads the error of column j.
        reversed_factor = np.linalg.cholesky(damped[::-1, ::-1])
        upper = _inverse_of_upper(np.ascontiguousarray(reversed_factor[::-1, ::-1]))
        return cls(cut, order, upper, np.ascontiguousarray(upper, np.float32))


def _inverse_of_upper(r: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Inverse of an upper triangular matrix, by halves: nearly all of the work is products of matrices."""
    n = len(r)
    if n <= _TRIANGLE:
        return np.triu(np.linalg.inv(r))
    half = n // 2
    out = np.zeros_like(r)
    out[:half, :half] = _inverse_of_upper(r[:half, :half])
    out[half:, half:] = _inverse_of_upper(r[half:, half:])
    out[:half, half:] = -out[:half, :half] @ r[:half, half:] @ out[half:, half:]
    return out


class Solver:
    """The problem of one layer input, factored once for all rows of the matrices that multiply it.

    Attributes:
        importance: float32 [K], the diagonal of H: what plain scale search weights errors by.
        failed: Why H could not be factored; ``quantize`` then searches scales only. None if it was.
    """

    def __init__(self, moments: Moments, options: GptqOptions | None = None) -> None:
        """Factor ``moments.second``. Never raises: see ``failed``."""
        self.options = options or GptqOptions()
        diagonal = np.diag(moments.second).astype(np.float64)
        usable = np.where(np.isfinite(diagonal), np.maximum(diagonal, 0), 0)
        self.importance: Floats = usable.astype(np.float32)
        self.failed: str | None = None
        self.damping = self.options.damping
        self._hessian: Floats | None = None
        self._parts: list[_Factor] | None = None
        self._shift: Floats | None = None
        if not np.isfinite(moments.second).all() or diagonal.mean() <= 0:
            self.failed = "the second moments are not finite or all zero"
            return
        self._factor(moments, diagonal)

    def _factor(self, moments: Moments, diagonal: npt.NDArray[np.float64]) -> None:
        options = self.options
        cuts = options.groups(len(diagonal))
        for _ in range(4):
            ridge = self.damping * diagonal.mean()
            try:
                parts = [_Factor.of(moments.second, cut, diagonal[cut], ridge, options) for cut in cuts]
            except np.linalg.LinAlgError:
                self.damping *= 10
                continue
            self._parts = parts
            if len(cuts) == 1 or options.sweeps:
                hessian = np.array(moments.second, np.float32) * np.float32(1 - options.shrink)
                np.fill_diagonal(hessian, diagonal + ridge)
                self._hessian = hessian
            if moments.cross is not None and options.shift:
                self._shift = np.zeros(moments.cross.shape, np.float32)
                for part in parts:
                    columns = part.columns()
                    cross = np.asarray(moments.cross, np.float64)[:, columns]
                    self._shift[:, columns] = options.shift * ((cross @ part.upper.T) @ part.upper)
            return
        self.failed = f"the second moments are not positive definite, even with a damping of {self.damping / 10:g}"

    def quantize(self, rows: Floats, fmt: WeightFormat) -> dict[str, npt.NDArray[np.generic]]:
        """Quantize float32 ``rows`` [n, K]; the arrays are those of ``quantize_rows``.

        Raises:
            CheckpointError: ``rows`` holds NaN or infinite values.
            ValueError: The factorisation had failed.
        """
        if self._parts is None:
            raise ValueError(f"cannot solve: {self.failed}")
        if not np.isfinite(rows).all():
            raise CheckpointError(
                "A weight matrix holds NaN or infinite values; expected finite numbers.",
                hint="The checkpoint, or the adapter merged into it, is damaged: download it again.",
            )
        problem = _Rows(self, rows if self._shift is None else rows + rows @ self._shift, fmt)
        for part in self._parts:
            problem.gptq(part)
        for _ in range(self.options.sweeps):
            problem.refit_scales()
            problem.refit_codes()
        return problem.arrays()

    def error(self, rows: Floats, restored: Floats) -> float:
        """tr((W - Q) H (W - Q)^T) of float32 ``rows`` [n, K] and what was stored for them."""
        assert self._hessian is not None  # kept unless the columns were cut into groups
        difference = rows - restored
        return float(np.einsum("ij,ij->", difference @ self._hessian, difference, dtype=np.float64))


class _Rows:
    """Rows being quantized, transposed and padded to whole blocks; ``q`` holds what the codes stand for."""

    def __init__(self, solver: Solver, rows: Floats, fmt: WeightFormat) -> None:
        self.fmt = fmt
        self._moments = solver._hessian
        self.importance = solver.importance
        n, k = rows.shape
        self.n, self.k, self.block, self.blocks = n, k, fmt.block_size, fmt.blocks(k)
        self.w: Floats = np.ascontiguousarray(rows.T, np.float32)
        self.codes: Floats = np.zeros((k, n), np.float32)  # code minus zero point
        self.zero = np.full((self.blocks, n), 1 << (fmt.bits - 1), np.float32)
        self.scale: Floats = np.zeros((self.blocks, n), np.float32)
        self.top = np.float32((1 << fmt.bits) - 1)

    @property
    def hessian(self) -> Floats:
        """The damped moments, which the sweeps need."""
        assert self._moments is not None
        return self._moments

    def gptq(self, part: _Factor) -> None:
        """Round the columns of ``part``, in its order if it has one; scales are searched at the start of each block."""
        cut, order, upper = part.cut, part.order, part.upper32
        work = self.w[cut]
        work = work.copy() if order is None else work[order]
        columns = part.columns()
        if order is not None:
            first = cut.start // self.block
            self._choose_scales(first, -(-cut.stop // self.block) - first, self.w[cut])
        step = _CHUNK if order is not None else max(self.block, _CHUNK // self.block * self.block)
        count = len(columns)
        for start in range(0, count, step):
            stop = min(start + step, count)
            piece = work[start:stop]
            errors = np.empty_like(piece)
            for j in range(start, stop):
                column = int(columns[j])
                index = column // self.block
                if order is None and column % self.block == 0:
                    self._choose_scales(index, 1, piece[j - start : j - start + self.block])
                row = piece[j - start]
                self.codes[column] = self._round(row, index)
                error = (row - self.codes[column] * self.scale[index]) / upper[j, j]
                errors[j - start] = error
                if j + 1 < stop:
                    piece[j + 1 - start :] -= upper[j, j + 1 : stop, None] * error
            if stop < count:
                work[stop:] -= upper[start:stop, stop:].T @ errors

    def refit_scales(self) -> None:
        """Least-squares scales for the codes as they are, rounded to what the file holds; never a sign change."""
        codes, blocks = self.codes, self.blocks
        projected = self.hessian @ self.w  # [K, n]
        right = np.empty((self.n, blocks), np.float32)
        left = np.empty((self.n, blocks, blocks), np.float32)
        for b in range(blocks):
            mine = self._columns(b)
            right[:, b] = np.einsum("kn,kn->n", codes[mine], projected[mine])
            spread = self.hessian[:, mine] @ codes[mine]  # [K, n]
            spread *= codes
            starts = np.arange(0, self.k, self.block)
            left[:, b, :] = np.add.reduceat(spread, starts, axis=0).T
        diagonal = np.einsum("nbb->nb", left)
        diagonal += _RIDGE * np.maximum(diagonal, diagonal.mean() * 1e-3 + 1e-30)
        try:
            solved = np.linalg.solve(left.astype(np.float64), right.astype(np.float64)[..., None])[..., 0].T
        except np.linalg.LinAlgError:
            return
        used = np.add.reduceat(np.abs(codes), np.arange(0, self.k, self.block), axis=0) > 0
        good = np.isfinite(solved) & used & (solved * self.scale > 0) & (np.abs(solved) < 4 * np.abs(self.scale))
        self._store(np.where(good, solved, self.scale).astype(np.float32))

    def refit_codes(self) -> None:
        """One cycle of coordinate descent over all columns, with the scales as they are."""
        gradient = self.hessian @ (self.w - self._values())  # [K, n], of -1/2 the error
        diagonal = np.diag(self.hessian)
        for start in range(0, self.k, _CHUNK):
            stop = min(start + _CHUNK, self.k)
            local = gradient[start:stop]
            moved = np.empty_like(local)
            for j in range(start, stop):
                index = j // self.block
                scale = self.scale[index]
                best = self._round(self.codes[j] * scale + local[j - start] / diagonal[j], index)
                change = (best - self.codes[j]) * scale
                self.codes[j] = best
                moved[j - start] = change
                local -= self.hessian[start:stop, j, None] * change
            if stop < self.k:
                gradient[stop:] -= self.hessian[stop:, start:stop] @ moved

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What the file holds."""
        stored = store_scales(np.ascontiguousarray(self.scale.T), self.fmt)
        padded = np.zeros((self.blocks * self.block, self.n), np.float32)
        padded[: self.k] = self.codes
        by_block = padded.reshape(self.blocks, self.block, self.n) + self.zero[:, None, :]
        codes = np.ascontiguousarray(by_block.transpose(2, 0, 1)).astype(np.uint8)
        zero_points = np.ascontiguousarray(self.zero.T).astype(np.uint8)
        return {**store_codes(codes, self.fmt), **stored, **store_zero_points(zero_points, self.fmt)}

    def _columns(self, index: int) -> slice:
        return slice(index * self.block, min((index + 1) * self.block, self.k))

    def _values(self) -> Floats:
        """float32 [K, n] that the codes stand for."""
        return self.codes * np.repeat(self.scale, self.block, axis=0)[: self.k]

    def _round(self, values: Floats, index: int) -> Floats:
        scale = self.scale[index]
        inverse = np.divide(1, scale, out=np.zeros_like(scale), where=np.abs(scale) > 1e-34)
        codes: Floats = np.rint(values * inverse)
        np.clip(codes, -self.zero[index], self.top - self.zero[index], out=codes)
        return codes

    def _choose_scales(self, first: int, count: int, values: Floats) -> None:
        """Scales and zero points of ``count`` blocks from ``first`` on by search on ``values`` [<= count * block, n],
        errors weighted by the inputs."""
        rows = np.zeros((self.n, count * self.block), np.float32)
        rows[:, : values.shape[0]] = values.T
        weight = np.zeros(count * self.block, np.float32)
        start = first * self.block
        weight[: values.shape[0]] = self.importance[start : start + values.shape[0]]
        scale, zero = choose_blocks(rows.reshape(-1, self.block), self.fmt, search_tile, weight)
        chosen = slice(first, first + count)
        self.scale[chosen] = scale.reshape(self.n, count).T
        self.zero[chosen] = zero.reshape(self.n, count).T
        if self.fmt.scale_bits == 16:
            self.scale[chosen] = self.scale[chosen].astype(np.float16)

    def _store(self, scale: Floats) -> None:
        self.scale = np.ascontiguousarray(load_scales(store_scales(np.ascontiguousarray(scale.T), self.fmt)).T)
