"""A bundle with gradients: the original's architecture, the bundle's codes, and trainable scales and norms.

Its weights go by their logical names, as in the graph: packed matrices (query, key and value) are one matrix, a tied
embedding is one that is used twice.

Imports PyTorch through ``kernels.py``: only functions may import this file.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch  # noqa: TID251

from edgedistill.errors import BundleError
from edgedistill.quantize import dequantize_rows
from edgedistill.quantize.spec import array_specs
from edgedistill.tune import kernels
from edgedistill.tune.decoder import ALL, Decoder
from edgedistill.tune.kernels import BlockMatrix
from edgedistill.tune.teacher import read_weight

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.architecture.spec import LogicalWeight, ModelSpec
    from edgedistill.checkpoint.types import TensorSource
    from edgedistill.quantize.spec import WeightFormat
    from edgedistill.tune.arrays import StoredArrays


@dataclass(slots=True)
class Vector:
    """A norm or bias: ``base`` float32 [N] as stored, ``shift`` float32 [N] trained in units of ``unit``."""

    base: torch.Tensor
    unit: float
    shift: torch.Tensor

    def value(self) -> torch.Tensor:
        """float32 [N], as it will be stored; carries the gradient of ``shift``."""
        return self.base + self.unit * self.shift


class Student:
    """The bundle's model with everything trainable at its stored value; the ``Weights`` of a ``Decoder``.

    Args:
        directory: The bundle.
        stored: Its arrays.
        formats: Format of every matrix by logical name, from the manifest.
        spec, weights: The architecture, from the reference's config.
        reference: Gives the values of matrices that the bundle stores in a form that is not tuned (they stay as they
            are), by the names of ``weights``.
        context: The bundle's.
        train_zero_points: Whether zero points are trained where they are stored.
        recompute: Keep no activations inside the layers, compute them again for the gradient.
    """

    def __init__(
        self,
        directory: Path,
        stored: StoredArrays,
        formats: Mapping[str, WeightFormat],
        spec: ModelSpec,
        weights: tuple[LogicalWeight, ...],
        reference: TensorSource,
        *,
        context: int,
        train_zero_points: bool,
        recompute: bool = False,
    ) -> None:
        self._stored = stored
        self.cap = spec.final_logit_softcapping
        self.matrices: dict[str, BlockMatrix] = {}
        self.vectors: dict[str, Vector] = {}
        self.frozen: list[str] = []
        self._plain: dict[str, torch.Tensor] = {}
        self._decoder = Decoder(spec, self, context=context, recompute=recompute)
        for weight in weights:
            if not weight.is_matrix:
                self._add_float(weight, directory)
            elif (matrix := self._block_matrix(weight, formats[weight.name], directory, train_zero_points)) is not None:
                self.matrices[weight.name] = matrix
            else:
                self._plain[weight.name] = self._plain_matrix(weight, formats[weight.name], directory, reference)
        self._head = "embed" if spec.tie_word_embeddings else "lm_head"

    # ---- building -------------------------------------------------------------------------------------------

    def _block_matrix(
        self, weight: LogicalWeight, fmt: WeightFormat, directory: Path, zero_points: bool
    ) -> BlockMatrix | None:
        """The matrix if it is stored as blocks of codes with scales; None for any other form."""
        name, stored = weight.name, self._stored
        if fmt.is_float or fmt.is_w8a8 or fmt.offsets or f"{name}.scales" not in stored:
            return None
        n, k = weight.shape
        bits = {np.dtype(np.float32): 32, np.dtype(np.float16): 16}.get(stored.places[f"{name}.scales"].dtype, 8)
        fmt = dataclasses.replace(fmt, scale_bits=bits)
        arrays: dict[str, npt.NDArray[Any]] = {}
        for spec in array_specs(name, (n, k), fmt):
            # An embedding by itself is known to the graph as rows of bytes.
            at = f"{name}.rows" if spec.name == f"{name}.q" and spec.name not in stored else spec.name
            if at not in stored or stored.places[at].dtype != np.dtype(spec.dtype):
                return None
            values = stored.read(directory, at)
            if values.size != math.prod(spec.shape):
                return None
            arrays[spec.name.removeprefix(f"{name}.")] = values.reshape(spec.shape)
        return BlockMatrix(arrays, fmt, k, train_zero_points=zero_points)

    def _plain_matrix(
        self, weight: LogicalWeight, fmt: WeightFormat, directory: Path, reference: TensorSource
    ) -> torch.Tensor:
        """A matrix that is not trained, float32 [N, K]: as stored, or the reference's where its form is not known."""
        stored = self._stored
        if fmt.is_float and weight.name in stored:
            return torch.from_numpy(stored.read(directory, weight.name).astype(np.float32))
        self.frozen.append(weight.name)
        if fmt.is_w8a8 and f"{weight.name}.q" in stored:
            arrays = {suffix: stored.read(directory, f"{weight.name}.{suffix}") for suffix in ("q", "scales")}
            return torch.from_numpy(dequantize_rows(arrays, fmt, weight.shape[1]))
        return read_weight(reference, weight)

    def _add_float(self, weight: LogicalWeight, directory: Path) -> None:
        """A vector, which is trained, or what is not: a router, what is added to its choice, a kernel."""
        if weight.name not in self._stored:
            raise BundleError(
                f"The bundle's graph has no {weight.kind} {weight.name}; the reference's architecture has one.",
                hint="Give the model that the bundle was exported from as --reference.",
            )
        # The experts' have an axis more in the graph.
        values = self._stored.read(directory, weight.name).astype(np.float32).reshape(weight.shape)
        base = torch.from_numpy(values)
        if weight.kind in ("router", "kernel") or weight.name.endswith(".selection"):
            self._plain[weight.name] = base
            return
        shift = torch.zeros_like(base, requires_grad=True)
        self.vectors[weight.name] = Vector(base, float(base.square().mean().sqrt()), shift)

    # ---- running --------------------------------------------------------------------------------------------

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states float32 [B, S, H] after the final norm, for int64 ids [B, S] padded on the right."""
        return self._decoder.hidden(ids)

    def linear(self, x: torch.Tensor, name: str, *, rows: slice = ALL, bias: bool = False) -> torch.Tensor:
        """See ``Weights``."""
        offset = self.vector(f"{name}.bias")[rows] if bias else None
        if name in self.matrices:
            return kernels.linear(x, self.matrices[name], rows, offset)
        return torch.nn.functional.linear(x, self._plain[name][rows], offset)

    def embedding(self, ids: torch.Tensor, name: str) -> torch.Tensor:
        """See ``Weights``."""
        return kernels.embedding(ids, self.matrices[name]) if name in self.matrices else self._plain[name][ids]

    def vector(self, name: str) -> torch.Tensor:
        """See ``Weights``; carries the gradient of what is trained."""
        return self.vectors[name].value() if name in self.vectors else self._plain[name]

    @property
    def head(self) -> BlockMatrix | torch.Tensor:
        """The matrix that gives logits: quantized, or fixed float32 [V, H]."""
        return self.matrices[self._head] if self._head in self.matrices else self._plain[self._head]

    def parameters(self, kind: str) -> list[torch.Tensor]:
        """Leaves to train, in a fixed order: ``scales``, ``zero_points`` or ``vectors``."""
        if kind == "scales":
            return [matrix.log_factor for matrix in self.matrices.values()]
        if kind == "zero_points":
            return [matrix.zero_shift for matrix in self.matrices.values() if matrix.zero_shift is not None]
        return [vector.shift for vector in self.vectors.values()]

    def arrays(self) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        """The arrays that training may change, as they are to be stored."""
        for name, matrix in self.matrices.items():
            for suffix, values in matrix.stored().items():
                place = self._stored.places[f"{name}.{suffix}"]
                yield f"{name}.{suffix}", values.reshape(place.shape)
        for name, vector in self.vectors.items():
            place = self._stored.places[name]
            yield name, vector.value().detach().numpy().astype(place.dtype).reshape(place.shape)
