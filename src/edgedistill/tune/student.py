"""A bundle as a PyTorch module: the original's architecture, the bundle's codes, and trainable scales and norms.

transformers builds the module; the forward passes of its matrices are replaced. Packed matrices (query, key and value)
are one matrix whose rows the parts share, a tied embedding is one matrix that is used twice.

Imports PyTorch through ``kernels.py``: only functions may import this file.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch  # noqa: TID251

from edgedistill.errors import BundleError
from edgedistill.quantize import dequantize_rows
from edgedistill.quantize.spec import array_specs
from edgedistill.tune import kernels
from edgedistill.tune.kernels import BlockMatrix
from edgedistill.verify.models.torch_weights import empty_module

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.architecture.spec import LogicalWeight, ModelSpec
    from edgedistill.checkpoint.open import Checkpoint
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
    """The bundle's model with everything trainable at its stored value.

    Args:
        directory: The bundle.
        stored: Its arrays.
        formats: Format of every weight by logical name, from the manifest.
        spec, weights: The architecture, from the reference's config.
        reference: Gives the module's config, and the values of matrices that the bundle stores in a form that is not
            tuned (they stay as they are).
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
        reference: Checkpoint,
        *,
        train_zero_points: bool,
        recompute: bool = False,
    ) -> None:
        self._stored, self._spec = stored, spec
        self.cap = spec.final_logit_softcapping
        self.matrices: dict[str, BlockMatrix] = {}
        self.vectors: dict[str, Vector] = {}
        self.frozen: list[str] = []
        self._plain: dict[str, torch.Tensor] = {}
        self._places: dict[str, list[tuple[Any, str, slice, float]]] = {}
        self._model = empty_module(reference)
        self._decoder = self._model.get_decoder()
        for weight in weights:
            if weight.is_matrix:
                self._add_matrix(weight, formats[weight.name], directory, reference, train_zero_points)
            else:
                self._add_vector(weight, directory)
        self._head = "embed" if spec.tie_word_embeddings else "lm_head"
        if recompute:
            for layer in self._decoder.layers:
                layer.forward = functools.partial(torch.utils.checkpoint.checkpoint, layer.forward, use_reentrant=False)
        left = [n for n, p in self._decoder.named_parameters() if p.is_meta]
        if left:
            raise BundleError(f"The bundle has no weights for {left[0]} of the reference's architecture.")

    # ---- building -------------------------------------------------------------------------------------------

    def _add_matrix(
        self, weight: LogicalWeight, fmt: WeightFormat, directory: Path, reference: Checkpoint, zero_points: bool
    ) -> None:
        modules = [self._model.get_submodule(part.removesuffix(".weight")) for part in weight.parts]
        sizes = [int(module.weight.shape[0]) for module in modules]
        if (matrix := self._block_matrix(weight, fmt, directory, zero_points)) is not None:
            self.matrices[weight.name] = matrix
        else:
            self._plain[weight.name] = self._plain_matrix(weight, fmt, directory, reference)
        start = 0
        for module, size in zip(modules, sizes, strict=True):
            rows = slice(start, start + size)
            start += size
            if matrix is None:
                _freeze(module, self._plain[weight.name][rows])
            elif weight.kind == "embedding":
                module.forward = functools.partial(_embed, module, matrix)
            else:
                module.forward = functools.partial(_project, module, matrix, rows)
            if matrix is not None:
                del module._parameters["weight"]

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
        self, weight: LogicalWeight, fmt: WeightFormat, directory: Path, reference: Checkpoint
    ) -> torch.Tensor:
        """A matrix that is not trained, float32 [N, K]: as stored, or the reference's where its form is not known."""
        stored = self._stored
        if fmt.is_float and weight.name in stored:
            return torch.from_numpy(stored.read(directory, weight.name).astype(np.float32))
        self.frozen.append(weight.name)
        if fmt.is_w8a8 and f"{weight.name}.q" in stored:
            arrays = {suffix: stored.read(directory, f"{weight.name}.{suffix}") for suffix in ("q", "scales")}
            return torch.from_numpy(dequantize_rows(arrays, fmt, weight.shape[1]))
        parts = [reference.tensors.read_rows(p, 0, reference.tensors.info(p).shape[0]) for p in weight.parts]
        return torch.from_numpy(np.concatenate(parts))

    def _add_vector(self, weight: LogicalWeight, directory: Path) -> None:
        if weight.name not in self._stored:
            raise BundleError(
                f"The bundle's graph has no vector {weight.name}; the reference's architecture has one.",
                hint="Give the model that the bundle was exported from as --reference.",
            )
        base = torch.from_numpy(self._stored.read(directory, weight.name).astype(np.float32))
        shift = torch.zeros_like(base, requires_grad=True)
        self.vectors[weight.name] = Vector(base, float(base.square().mean().sqrt()), shift)
        start = 0
        for part in weight.parts:
            owner, _, attribute = part.rpartition(".")
            module = self._model.get_submodule(owner)
            size = int(module._parameters.pop(attribute).shape[0])
            self._places.setdefault(weight.name, []).append(
                (module, attribute, slice(start, start + size), weight.offset)
            )
            start += size

    # ---- running --------------------------------------------------------------------------------------------

    def hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Hidden states float32 [B, S, H] after the final norm, for int64 ids [B, S] padded on the right."""
        for name, vector in self.vectors.items():
            value = vector.value()
            for module, attribute, rows, offset in self._places[name]:
                # Gemma's norms add 1 to their weight; the bundle stores the sum.
                setattr(module, attribute, value[rows] - offset if offset else value[rows])
        return self._decoder(input_ids=ids, use_cache=False).last_hidden_state

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


def _freeze(module: Any, values: torch.Tensor) -> None:
    module._parameters["weight"] = torch.nn.Parameter(values, requires_grad=False)


def _embed(module: Any, matrix: BlockMatrix, ids: torch.Tensor) -> torch.Tensor:
    out = kernels.embedding(ids, matrix)
    # Gemma's embedding multiplies its output.
    scale = getattr(module, "embed_scale", None)
    return out if scale is None else out * scale


def _project(module: Any, matrix: BlockMatrix, rows: slice, x: torch.Tensor) -> torch.Tensor:
    return kernels.linear(x, matrix, rows, module.bias)
