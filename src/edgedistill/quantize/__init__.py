"""Weight quantization: arrays in, arrays in the layout of ONNX Runtime's MatMulNBits out.

A new algorithm is one file here, reached from ``quantize_rows``. ``spec.WeightFormat`` says what a format is and
``plan.parse_format`` reads its name; ``search.rtn_tile``, ``search.search_tile`` and ``gptq.Solver`` choose the codes,
``blockwise.quantize_blockwise`` runs them over tiles and threads, ``kept.keep_rows`` finds codes that were chosen
before, ``storage.store_codes`` puts codes into bytes; ``allocate.allocate`` spends a budget over weights.

Never imports ``checkpoint``, ``graph``, ``bundle`` or ``profile``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import numpy.typing as npt

    from edgedistill.quantize.gptq import Solver
    from edgedistill.quantize.spec import WeightFormat


def quantize_rows(
    rows: npt.NDArray[np.float32],
    fmt: WeightFormat,
    importance: npt.NDArray[np.float32] | None = None,
    *,
    solver: Solver | None = None,
    threads: int = 1,
) -> dict[str, npt.NDArray[np.generic]]:
    """Quantize rows of a matrix.

    Args:
        rows: float32 [n, K]; any slice of rows of a weight [N, K]. Rows do not influence one another.
        fmt: A quantized format; its ``method`` picks the algorithm.
        importance: float32 [K], non-negative weights of the squared error per input feature (such as the mean square of
            the activations), used by ``search``; None: every feature counts the same.
        solver: What the method ``gptq`` knows of the inputs. Without one, or where its factorisation failed, scales are
            searched.
        threads: Threads to share the rows among; the result does not depend on it.

    Returns:
        Arrays by suffix, exactly as ``array_specs`` lists them with N = n: codes, scales and, if asymmetric, zero
        points. A value is (code - zero point) * scale, so 0.0 is always exact. Scales of symmetric formats may be
        negative.

    Raises:
        CheckpointError: ``rows`` holds NaN or infinite values.
        ValueError: ``fmt`` is float, or ``importance`` has a wrong shape or negative values.
    """
    from edgedistill.quantize.blockwise import quantize_blockwise
    from edgedistill.quantize.search import rtn_tile, search_tile

    if fmt.is_w8a8:
        from edgedistill.quantize.w8a8 import quantize_channels

        return quantize_channels(rows, fmt, importance, threads=threads)
    if fmt.method == "gptq" and solver is not None:
        if solver.failed is None:
            return solver.quantize(rows, fmt)
        importance = solver.importance
    if fmt.method == "rtn":
        return quantize_blockwise(rows, fmt, rtn_tile, threads=threads)
    return quantize_blockwise(rows, fmt, search_tile, importance=importance, threads=threads)


def dequantize_rows(
    arrays: Mapping[str, npt.NDArray[np.generic]], fmt: WeightFormat, k: int
) -> npt.NDArray[np.float32]:
    """float32 [n, k] of the arrays that ``quantize_rows`` returned for ``fmt``."""
    from edgedistill.quantize.blockwise import dequantize_blockwise
    from edgedistill.quantize.w8a8 import dequantize_channels

    if fmt.is_w8a8:
        return dequantize_channels(arrays)
    return dequantize_blockwise(arrays, fmt, k)
