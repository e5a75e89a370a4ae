"""Estimates how long a calibration will take, from the shapes of the matrices and short timings on this machine.

Three kinds of work count: passes of the tokens through a layer and second moments of inputs, which are both products of
matrices in float32, and solving. Solving is a factorisation, whose time grows with the cube of a matrix's columns, and
the rounding of its rows, whose time grows with their number times the square of the columns. Each is timed on a small
matrix.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.quantize import quantize_rows
from edgedistill.quantize.gptq import Moments, Solver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgedistill.export.plan import Plan
    from edgedistill.quantize.gptq import GptqOptions
    from edgedistill.quantize.spec import WeightFormat

STAGES = (
    ("attn.qkv", "attn.query", "attn.output_gate"), ("attn.o",), ("conv.in",), ("conv.out",),
    ("delta.in",), ("delta.out",), ("mamba.in",), ("mamba.out",),
    ("mlp.gate", "mlp.up", "mlp.shared.gate", "mlp.shared.up"), ("mlp.down",), ("mlp.shared.down",),
    ("per_layer.gate",), ("per_layer.out",),
)  # fmt: skip
"""Matrices of a layer in the order in which they act; those of one stage have the same inputs."""
_OVERHEAD = 1.3
"""Factor for reading and widening weights and opening parts of the model, measured between 1.25 and 1.4."""
_COLUMNS, _ROWS, _SIDE = 1024, 256, 1024


@dataclass(frozen=True, slots=True)
class Rates:
    """Seconds of each kind of work on this machine.

    Attributes:
        product: Per multiplication and addition within a product of matrices.
        factor: Per cube of the columns of a factorised matrix.
        row: Per rounded row and square of its columns, with one thread.
    """

    product: float
    factor: float
    row: float


def measure_rates(options: GptqOptions, fmt: WeightFormat, hidden_size: int) -> Rates:
    """Time a product, a factorisation and the rounding of rows to ``fmt``, with at most 1,024 columns."""
    columns = min(_COLUMNS, hidden_size)
    rng = np.random.default_rng(0)
    square = rng.standard_normal((_SIDE, _SIDE), np.float32)
    product = min(_timed(lambda: square @ square) for _ in range(2))
    values = rng.standard_normal((2 * columns, columns), np.float32)
    second = values.T @ values / len(values)
    moments = Moments(second, second / 100 if options.sequential else None, len(values))
    solver = Solver(moments, options)
    factor = _timed(lambda: Solver(moments, options))
    some = values[:_ROWS]
    rows = _timed(lambda: quantize_rows(some, fmt, solver=solver))
    return Rates(product / _SIDE**3, factor / columns**3, rows / (len(some) * columns**2))


def estimate_seconds(plan: Plan, tokens: int, options: GptqOptions, threads: int, rates: Rates) -> float:
    """Seconds that calibrating the layers of ``plan`` on ``tokens`` tokens will take with ``threads`` threads."""
    planned = plan.planned.by_name()
    shapes = {w.name: (w.shape[0], w.shape[1]) for w in plan.weights if w.name.startswith("layers.") and w.is_matrix}
    total = 0.0
    for index in range(plan.spec.num_hidden_layers):
        prefix, passed = f"layers.{index}.", 0
        sizes = [rows * columns for name, (rows, columns) in shapes.items() if name.startswith(prefix)]
        products = float(sum(sizes)) * (2 if options.sequential else 1)
        for stage in STAGES:
            found = [name for part in stage if (name := prefix + part) in shapes]
            solved = [name for name in found if planned[name].format.method == "gptq"]
            if solved:
                widths = _widths(shapes[solved[0]][1], options)
                products += 2 * passed * options.sequential
                products += sum(width**2 for width in widths) * (2 if options.sequential else 1)
                total += rates.factor * sum(width**3 for width in widths)
                rows = sum(shapes[name][0] for name in solved)
                total += rates.row * rows * sum(width**2 for width in widths) / threads
            passed += sum(shapes[name][0] * shapes[name][1] for name in found)
        total += rates.product * products * tokens
    return _OVERHEAD * total


def _widths(columns: int, options: GptqOptions) -> Sequence[int]:
    return [cut.stop - cut.start for cut in options.groups(columns)]


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
