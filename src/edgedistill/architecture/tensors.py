"""A checkpoint's tensors under one layout: Llama's names, unfused, rotary pairs in halves, multipliers folded in.

What families store differently is undone while rows are read, so that everything behind this file knows one layout:

- names of a family's own; queries, keys and values, or gate and up, in one tensor: a range of its rows;
- neighbouring rotary pairs (GLM, Cohere, ERNIE, Helium) or a part of each head rotated: rows of queries and keys in
  another order. A permutation of the elements of a head that queries and keys share changes no product of them, so the
  pairs can lie where the kernel expects them: (i, i + head_dim/2);
- multipliers of residuals and logits: factors on the last matrix before the sum, and on the final norm.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.architecture.experts import expert_refs
from edgedistill.architecture.family_table import FAMILIES
from edgedistill.architecture.recurrent import Mamba2Spec
from edgedistill.architecture.rope import rotated_elements, rotates_whole_heads
from edgedistill.architecture.tensor_refs import RefReader, TensorRef
from edgedistill.checkpoint.types import TensorInfo

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy.typing as npt

    from edgedistill.architecture.family import Family
    from edgedistill.architecture.spec import ModelSpec
    from edgedistill.architecture.tensor_refs import Order, Ref
    from edgedistill.checkpoint.grid import Grid, Scales, ZeroPoints
    from edgedistill.checkpoint.types import TensorSource

_UNUSED = (".rotary_emb.inv_freq", ".masked_bias", ".attn.bias")


class ModelTensors:
    """A ``TensorSource`` of the names that ``logical_weights`` asks for, over one of the names that are stored."""

    def __init__(self, source: TensorSource, refs: Mapping[str, Ref]) -> None:
        """``refs``: what is not stored as it is asked for, by the name that is asked for."""
        self._source = source
        self._refs = refs
        self._stored = set(source.names())
        self._reader = RefReader(source)

    def names(self) -> Iterable[str]:
        """Names that can be read: what is mapped, then everything that is stored under its own name."""
        mapped = [name for name, ref in self._refs.items() if self._stored.issuperset(ref.names)]
        taken = {name for ref in self._refs.values() for name in ref.names}
        return [*mapped, *(name for name in self._source.names() if name not in taken and name not in self._refs)]

    def info(self, name: str) -> TensorInfo:
        """Header of ``name``; raises CheckpointError if there is none, or fewer rows than the config promises."""
        ref = self._ref(name)
        return TensorInfo(name, self._reader.shape(ref), self._reader.dtype(ref))

    def read_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Rows ``start:stop`` as float32; raises as the source does."""
        return self._reader.rows(self._ref(name), start, stop)

    def grid(self, name: str) -> Grid | None:
        """The grid of ``name``; None for a multiplied tensor, whose scales could need more bits."""
        return self._reader.grid(self._ref(name))

    def read_grid(self, name: str, start: int, stop: int) -> tuple[Scales, ZeroPoints]:
        """Scales and zero points of the rows ``start:stop``, see ``GridSource``."""
        return self._reader.read_grid(self._ref(name), start, stop)

    def close(self) -> None:
        """Close the source."""
        self._source.close()

    def unused(self, asked: Iterable[str], ignored: tuple[str, ...] = ()) -> list[str]:
        """Stored tensors that none of the names ``asked`` reads, without those that no arithmetic ever uses."""
        used = {stored for name in asked for stored in self._ref(name).names}
        return sorted(name for name in self._stored if name not in used and not name.endswith((*_UNUSED, *ignored)))

    def _ref(self, name: str) -> Ref:
        return self._refs.get(name) or TensorRef(name)


def model_tensors(config: Mapping[str, Any], spec: ModelSpec, source: TensorSource) -> ModelTensors:
    """The tensors of a checkpoint under the names of ``logical_weights(spec)``."""
    family = FAMILIES[spec.family]
    named = {
        f"{name}.weight": TensorRef(f"{own}.weight") for name, own in family.names.items() if name.startswith("model.")
    }
    refs: dict[str, Ref] = {**named}
    stored = set(source.names())
    for index in range(spec.num_hidden_layers):
        refs |= _layer(config, family, spec.of_layer(index), index, stored)
    scale = family.logits_scale.number(config) if family.logits_scale else 1.0
    scale /= family.logits_divisor.number(config) if family.logits_divisor else 1.0
    if scale != 1.0:
        norm = named.get("model.norm.weight") or TensorRef("model.norm.weight")
        refs["model.norm.weight"] = replace(norm, factor=scale)
        if spec.norm_bias:
            refs["model.norm.bias"] = TensorRef("model.norm.bias", factor=scale)
    return ModelTensors(source, refs)


def _layer(config: Mapping[str, Any], family: Family, spec: ModelSpec, index: int, stored: set[str]) -> dict[str, Ref]:
    prefix = f"model.layers.{index}."
    refs = {
        f"{prefix}{name}.{kind}": TensorRef(f"{prefix}{own}.{kind}")
        for name, own in family.names.items()
        for kind in ("weight", "bias")
        if not name.startswith("model.")
    }
    recurrent = spec.layers[index].recurrent
    if recurrent is None:
        refs |= _attention(family, spec, index, refs)
    else:
        for module in ("conv.conv", "linear_attn.conv1d", "mamba.conv1d"):
            kernel = f"{prefix}{module}.weight"
            refs[kernel] = TensorRef(kernel, kernel=True)
    if isinstance(recurrent, Mamba2Spec):  # the time steps' rows lie behind the others
        for kind in ("weight", "bias"):
            whole, rows = f"{prefix}mamba.in_proj.{kind}", recurrent.values + recurrent.channels
            refs[whole] = TensorRef(whole, 0, rows)
            refs[f"{prefix}mamba.dt_proj.{kind}"] = TensorRef(whole, rows)
    mixture = spec.layers[index].mixture
    # GGUF files of some families have gate and up apart.
    if family.fused_gate_up and not mixture and f"{prefix}mlp.gate_proj.weight" not in stored:
        inner = spec.intermediate_size
        for part, first in (("gate_proj", 0), ("up_proj", inner)):
            for kind in ("weight", "bias"):
                refs[f"{prefix}mlp.{part}.{kind}"] = TensorRef(f"{prefix}{family.fused_gate_up}.{kind}", first, inner)
    scale = family.residual_scale.number(config) if family.residual_scale else 1.0
    if scale != 1.0:
        last = "mamba.out_proj" if isinstance(recurrent, Mamba2Spec) else "self_attn.o_proj"
        for name in (last,) if mixture else (last, "mlp.down_proj"):
            for kind in ("weight", "bias"):
                full = f"{prefix}{name}.{kind}"
                refs[full] = replace(refs.get(full) or TensorRef(full), factor=scale)
    return {**refs, **(expert_refs(family, spec, index, stored, scale) if mixture else {})}


def _attention(family: Family, spec: ModelSpec, index: int, named: Mapping[str, TensorRef]) -> dict[str, TensorRef]:
    """Queries, keys and values of a layer, whose other names are ``named``."""
    prefix = f"model.layers.{index}."
    refs: dict[str, TensorRef] = {}
    order, own_sizes = _order(family, spec, index), family.own_sizes
    sizes = {"q": spec.q_size, "k": spec.kv_size, "v": spec.kv_size}
    start = 0
    for which, size in sizes.items():
        own_order = None if which == "v" else order
        source, stride = which, 0
        if own_sizes and which != "q":
            source = "k" if spec.layers[index].values_are_keys else which
            own_order, stride = _repeated(spec, index)
        for kind in ("weight", "bias"):
            name = f"{prefix}self_attn.{which}_proj.{kind}"
            if family.fused_qkv:
                refs[name] = TensorRef(f"{prefix}{family.fused_qkv}.{kind}", start, size, own_order)
            elif source != which or own_order is not None:
                stored = f"{prefix}self_attn.{source}_proj.{kind}"
                refs[name] = TensorRef(stored, rows=size if stride else None, order=own_order, stride=stride)
        start += size
        norm = f"{prefix}self_attn.{which}_norm.weight"
        if own_order is not None and not stride and spec.qk_norm != "none":
            refs[norm] = TensorRef(named[norm].name if norm in named else norm, order=own_order)
    if spec.output_gate:  # its rows lie behind the queries' in every head
        head = spec.head_dim
        inside = np.arange(head) if order is None else order
        for kind in ("weight", "bias"):
            stored = f"{prefix}self_attn.q_proj.{kind}"
            for name, rows in (("q_proj", inside), ("gate_proj", np.arange(head, 2 * head))):
                refs[f"{prefix}self_attn.{name}.{kind}"] = TensorRef(stored, 0, spec.q_size, rows, 2 * head)
    return refs


def _repeated(spec: ModelSpec, index: int) -> tuple[Order | None, int]:
    """Order and stride of the rows of key/value heads that are there several times; None and 0: once."""
    repeats = spec.layers[index].kv_repeats
    if repeats == 1:
        return None, 0
    rows = np.arange(spec.kv_size // repeats).reshape(-1, spec.head_dim)
    return np.repeat(rows, repeats, axis=0).reshape(-1), rows.size


def _order(family: Family, spec: ModelSpec, index: int) -> Order | None:
    """Where each element of a head of queries and keys is stored; None: where the kernel wants it.

    Element i of the first half and element i of the second are the pair i of the rotation.
    """
    rope = spec.layers[index].rope
    if rope is None or rotates_whole_heads(rope):
        return None
    half, rotated = spec.head_dim // 2, rotated_elements(rope)
    pairs = rotated // 2
    if family.interleaved_rope:
        first, second = np.arange(0, rotated, 2), np.arange(1, rotated, 2)
    elif pairs == half:
        return None
    else:
        first, second = np.arange(pairs), np.arange(pairs, rotated)
    rest = np.arange(rotated, spec.head_dim)
    order = np.concatenate([first, rest[: half - pairs], second, rest[half - pairs :]])
    return order.astype(np.int64)
