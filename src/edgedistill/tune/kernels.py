"""The arithmetic of a quantized model with gradients, in memory that does not hold a dequantized model.

A value is w = (code - zero point) * scale with scale = s0 * exp(t), so that a step of t is relative. Then dL/dt of a
block is the sum of dL/dw * w over it, and dL/d(zero point) is -scale times the sum of dL/dw. Weights are dequantized
when they are used, forwards and again backwards.

Imports PyTorch, which is an extra: only functions may import this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch  # noqa: TID251

from edgedistill.quantize.storage import load_codes, load_scales, load_zero_points, store_scales, store_zero_points

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from edgedistill.quantize.spec import WeightFormat

POSITIONS = 128
"""Positions whose logits exist at the same time."""


class BlockMatrix:
    """A blockwise quantized matrix [N, K] and what is trained of it.

    Scales and zero points are rounded to what the file can hold whenever they are used; gradients pass the rounding by.

    Attributes:
        log_factor: float32 [N, blocks], requires a gradient; 0 at the start.
        zero_shift: float32 [N, blocks] to add to the stored zero points before rounding, or None where they are fixed.
    """

    def __init__(
        self, arrays: Mapping[str, npt.NDArray[Any]], fmt: WeightFormat, k: int, *, train_zero_points: bool
    ) -> None:
        """Take the stored ``arrays`` of a matrix with ``k`` columns, by the suffixes of ``array_specs``."""
        self.format, self.k = fmt, k
        blocks = fmt.blocks(k)
        self.codes = torch.from_numpy(np.ascontiguousarray(load_codes(arrays, fmt)))
        self.base = torch.from_numpy(load_scales(arrays))
        self._base_zero = torch.from_numpy(np.ascontiguousarray(load_zero_points(arrays, fmt, blocks)))
        self.log_factor = torch.zeros_like(self.base, requires_grad=True)
        trains = train_zero_points and not fmt.symmetric
        self.zero_shift = torch.zeros_like(self.base, requires_grad=True) if trains else None
        self._rounded: tuple[int, torch.Tensor] = (-1, self.base)

    @property
    def rows(self) -> int:
        return int(self.codes.shape[0])

    def stored(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays that training may change, by suffix, as they are to be stored."""
        arrays: dict[str, npt.NDArray[Any]] = dict(store_scales(self._exact_scales(), self.format))
        if self.zero_shift is not None:
            arrays |= store_zero_points(self.zero_points().numpy(), self.format)
        return arrays

    def _exact_scales(self) -> npt.NDArray[np.float32]:
        scales: npt.NDArray[np.float32] = (self.base * torch.exp(self.log_factor.detach())).numpy()
        return scales

    def scales(self) -> torch.Tensor:
        """float32 [N, blocks] as the kernel will see them; detached."""
        version = self.log_factor._version
        if self._rounded[0] != version:
            stored = store_scales(self._exact_scales(), self.format)
            self._rounded = (version, torch.from_numpy(load_scales(stored)))
        return self._rounded[1]

    def zero_points(self) -> torch.Tensor:
        """uint8 [N, blocks] as they will be stored; detached."""
        if self.zero_shift is None:
            return self._base_zero
        top = (1 << self.format.bits) - 1
        return (self._base_zero + self.zero_shift.detach()).round().clamp(0, top).to(torch.uint8)

    def dequantize(self, rows: slice = slice(None)) -> torch.Tensor:
        """float32 [rows, blocks * block]; detached, padding included."""
        values = self.codes[rows].to(torch.float32)
        values.sub_(self.zero_points()[rows].float()[..., None]).mul_(self.scales()[rows][..., None])
        return values.flatten(1)

    def gradients(self, weight: torch.Tensor, grad: torch.Tensor, rows: slice) -> tuple[Any, Any]:
        """Gradients [rows, blocks] of log factor and zero shift from dL/dw [rows, padded]; overwrites ``weight``."""
        shape = (weight.shape[0], self.codes.shape[1], self.codes.shape[2])
        blocks = grad.view(shape)
        shift = None
        if self.zero_shift is not None:
            shift = blocks.sum(-1).mul_(self.scales()[rows]).neg_()
        return weight.view(shape).mul_(blocks).sum(-1), shift

    def pad(self, values: torch.Tensor) -> torch.Tensor:
        """Columns [..., K] as [..., blocks * block]."""
        padded = self.codes.shape[1] * self.codes.shape[2]
        return values if padded == self.k else torch.nn.functional.pad(values, (0, padded - self.k))


class _Linear(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        _factor: torch.Tensor,  # the leaves come along so that autograd knows of them
        _shift: torch.Tensor | None,
        matrix: BlockMatrix,
        rows: slice,
    ) -> torch.Tensor:
        ctx.matrix, ctx.rows = matrix, rows
        ctx.save_for_backward(x)
        return x @ matrix.dequantize(rows)[:, : matrix.k].T

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        matrix, rows, (x,) = ctx.matrix, ctx.rows, ctx.saved_tensors
        weight = matrix.dequantize(rows)
        flat = grad.flatten(0, -2)
        grad_x = (flat @ weight[:, : matrix.k]).view_as(x)
        factor, shift = matrix.gradients(weight, matrix.pad(flat.T @ x.flatten(0, -2)), rows)
        grad_shift = None if shift is None else _all_rows(matrix, shift, rows)
        return grad_x, _all_rows(matrix, factor, rows), grad_shift, None, None


def _all_rows(matrix: BlockMatrix, part: torch.Tensor, rows: slice) -> torch.Tensor:
    if part.shape[0] == matrix.rows:
        return part
    whole = torch.zeros_like(matrix.base)
    whole[rows] = part
    return whole


def linear(x: torch.Tensor, matrix: BlockMatrix, rows: slice, bias: torch.Tensor | None) -> torch.Tensor:
    """``x`` float32 [..., K] times the transposed ``rows`` of ``matrix``: [..., rows], plus ``bias`` [rows]."""
    out = _Linear.apply(x, matrix.log_factor, matrix.zero_shift, matrix, rows)
    return out if bias is None else out + bias


def embedding(ids: torch.Tensor, matrix: BlockMatrix) -> torch.Tensor:
    """Rows ``ids`` int64 [B, S] of ``matrix``: float32 [B, S, K]."""
    exact = matrix.base[ids] * torch.exp(matrix.log_factor[ids])
    scale = exact + (matrix.scales()[ids] - exact.detach())  # the value of the second, the gradient of the first
    zero = matrix.zero_points()[ids].float()
    if matrix.zero_shift is not None:
        shift = matrix.zero_shift[ids]
        zero = zero + (shift - shift.detach())
    values = (matrix.codes[ids].float() - zero[..., None]) * scale[..., None]
    return values.flatten(2)[..., : matrix.k]


class _Divergence(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        _factor: torch.Tensor | None,
        _shift: torch.Tensor | None,
        matrix: BlockMatrix | torch.Tensor,
        wanted: torch.Tensor,
        head: torch.Tensor,
        cap: float | None,
        reverse: bool,
    ) -> torch.Tensor:
        weight = matrix.dequantize() if isinstance(matrix, BlockMatrix) else matrix
        used = weight[:, : hidden.shape[1]]
        trains = isinstance(matrix, BlockMatrix) and ctx.needs_input_grad[1]
        grad_weight = torch.zeros_like(used) if trains else None
        grad_hidden = torch.empty_like(hidden)
        total = torch.zeros((), dtype=torch.float64)
        for start in range(0, hidden.shape[0], POSITIONS):
            part = slice(start, start + POSITIONS)
            logits, slope = _logits(hidden[part], used, cap)
            log_q = logits.log_softmax(-1)
            log_p = _logits(wanted[part], head, cap)[0].log_softmax(-1)
            if reverse:
                # d KL(q || p) / d logit = q * (log q - log p - KL)
                q, gap = log_q.exp(), log_q - log_p
                kl = (q * gap).sum(-1)
                grad = gap.sub_(kl[:, None]).mul_(q)
            else:
                # d KL(p || q) / d logit = q - p
                p = log_p.exp()
                kl = (p * (log_p - log_q)).sum(-1)
                grad = log_q.exp().sub_(p)
            total += kl.double().sum()
            if slope is not None:
                grad.mul_(slope)
            grad_hidden[part] = grad @ used
            if grad_weight is not None:
                grad_weight.addmm_(grad.T, hidden[part])
        count = hidden.shape[0]
        factor = shift = None
        if grad_weight is not None and isinstance(matrix, BlockMatrix):
            factor, shift = matrix.gradients(weight, matrix.pad(grad_weight.div_(count)), slice(None))
        ctx.save_for_backward(grad_hidden.div_(count), factor, shift)
        return (total / count).float()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        return (*(None if g is None else g * grad for g in ctx.saved_tensors), None, None, None, None, None)


def _logits(hidden: torch.Tensor, weight: torch.Tensor, cap: float | None) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Logits, and their derivative by the uncapped ones where there is a cap."""
    raw = hidden @ weight.T
    if not cap:
        return raw, None
    squashed = torch.tanh(raw / cap)
    return squashed * cap, 1 - squashed * squashed


def divergence(
    hidden: torch.Tensor,
    matrix: BlockMatrix | torch.Tensor,
    wanted: torch.Tensor,
    head: torch.Tensor,
    *,
    cap: float | None,
    reverse: bool,
) -> torch.Tensor:
    """Mean KL in nats over positions: of the reference from the quantized model, or the ``reverse``.

    The gradient is computed with the value, a slice of positions at a time, so that no more than ``POSITIONS`` rows of
    logits ever exist.

    Args:
        hidden: float32 [positions, H] of the quantized model, final norm applied.
        matrix: Its head [V, H]: quantized, or a fixed tensor.
        wanted: float32 [positions, H] of the reference.
        head: float32 [V, H] of the reference.
        cap: Soft cap of the logits (Gemma), or None.
    """
    quantized = isinstance(matrix, BlockMatrix)
    factor = matrix.log_factor if quantized else None
    shift = matrix.zero_shift if quantized else None
    return _Divergence.apply(hidden, factor, shift, matrix, wanted, head, cap, reverse)
