"""Mixtures of experts: what a config says about them, and where their matrices lie in a checkpoint.

Behind ``architecture.tensors``, expert e of layer i has two matrices, whoever stored it: ``layers.i.mlp.experts.e.
gate_up_proj`` [2 * inner, H], whose rows are gate and up in turn (what ONNX Runtime's kernels read), and ``down_proj``
[H, inner].
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgedistill.architecture.family import flag
from edgedistill.architecture.spec import ExpertsSpec
from edgedistill.architecture.tensor_refs import Neighbours, TensorRef
from edgedistill.checkpoint.config_values import integer, number
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.architecture.family import Experts, Family
    from edgedistill.architecture.spec import ModelSpec
    from edgedistill.architecture.tensor_refs import Ref

BLOCK = 16
"""The smallest block of weights that the kernels have: it has to divide both sizes of an expert."""
_MOST_EXPERTS = 1 << 17
"""More than the layers of any model have together (the largest have some 25,000): what follows loops over them."""


def experts_spec(config: Mapping[str, Any], family: Experts | None, hidden_size: int) -> ExpertsSpec | None:
    """The mixture of experts of a config, None without one.

    Raises CheckpointError for missing or contradicting keys, UnsupportedModelError for sizes that no kernel takes.
    """
    if family is None or _has_none(config, family):
        return None
    count, active = _count(config, family), integer(config, family.active.name, int(family.active.default))
    if active > count:
        raise CheckpointError(
            f"config.json has {family.active.name} = {active} of {count} experts.",
            hint="Compare config.json with the original model's.",
        )
    size = integer(config, family.size.name, int(family.size.default) or None)
    if size % BLOCK or hidden_size % BLOCK:
        raise UnsupportedModelError(
            f"The experts have matrices of {size} by {hidden_size}; ONNX Runtime needs multiples of {BLOCK}."
        )
    return ExpertsSpec(
        count=count,
        active=active,
        intermediate_size=size,
        normalized=flag(family.normalized, config),
        bias=family.bias,
        router_bias=family.bias,
        limit=family.limit.number(config) if family.limit else None,
        sigmoid_scale=family.sigmoid_scale.number(config),
        up_offset=family.up_offset,
        shared_size=int(family.shared.number(config)) if family.shared else 0,
        shared_gated=family.shared_gate is not None,
        sigmoid=family.sigmoid,
        selection=family.selection is not None and family.selection[0].flag(config),
        scaling=family.scaling.number(config) if family.scaling else 1.0,
    )


def _count(config: Mapping[str, Any], family: Experts) -> int:
    """transformers has two names for it, either of which may be stored."""
    names = (family.count.name, "num_local_experts", "num_experts")
    name = next((name for name in names if config.get(name) is not None), family.count.name)
    return integer(config, name, int(family.count.default))


def _has_none(config: Mapping[str, Any], family: Experts) -> bool:
    return family.optional and config.get(family.count.name, family.count.default) in (0, None)


def mixture_layers(config: Mapping[str, Any], family: Experts | None, count: int) -> tuple[bool, ...]:
    """Whether each layer is a mixture; raises CheckpointError for more experts than any model has."""
    if family is None or _has_none(config, family):
        return (False,) * count
    mixture = _mixture_layers(config, family, count)
    if (experts := _count(config, family) * sum(mixture)) > _MOST_EXPERTS:
        raise CheckpointError(
            f"The config claims {experts} experts in all layers; at most {_MOST_EXPERTS} are expected.",
            hint="Compare config.json with the original model's.",
        )
    return mixture


def _mixture_layers(config: Mapping[str, Any], family: Experts, count: int) -> tuple[bool, ...]:
    if family.dense_first:
        first = number(config, family.dense_first.name, family.dense_first.default)  # 0 is a sensible value here
        return tuple(index >= first for index in range(count))
    if not family.some_layers:
        return (True,) * count
    step = integer(config, "decoder_sparse_step", 1)
    dense = config.get("mlp_only_layers") or ()
    if not isinstance(dense, list | tuple):
        raise CheckpointError(f"config.json has mlp_only_layers = {dense!r}; a list of layers is expected.")
    return tuple(index not in dense and (index + 1) % step == 0 for index in range(count))


def expert_refs(family: Family, spec: ModelSpec, index: int, stored: set[str], factor: float) -> dict[str, Ref]:
    """Where the matrices and biases of a layer's experts and its router are; ``factor`` multiplies what comes out."""
    experts, prefix = family.experts, f"model.layers.{index}."
    if experts is None or spec.experts is None:
        return {}
    refs: dict[str, Ref] = {
        f"{prefix}mlp.router.{kind}": TensorRef(f"{prefix}{experts.router}.{kind}") for kind in ("weight", "bias")
    }
    if experts.selection:
        refs[f"{prefix}mlp.router.selection"] = TensorRef(f"{prefix}{experts.selection[1]}")
    refs |= _shared(experts, spec.experts, prefix, factor, stored)
    for expert in range(spec.experts.count):
        name = f"{prefix}mlp.experts.{expert}"
        for kind in ("weight", "bias"):
            gate_up, down = _of_expert(experts, spec.experts, prefix, expert, kind, stored)
            refs[f"{name}.gate_up_proj.{kind}"] = gate_up
            refs[f"{name}.down_proj.{kind}"] = replace(down, factor=factor)
    return refs


def _shared(experts: Experts, spec: ExpertsSpec, prefix: str, factor: float, stored: set[str]) -> dict[str, Ref]:
    """Where the matrices of the expert that all tokens share are; nothing where there is none."""
    if not spec.shared_size:
        return {}
    apart = [f"{prefix}mlp.shared_experts.{which}_proj.weight" for which in ("gate", "up", "down")]
    names = [f"{prefix}{name}.weight" for name in experts.shared_names]
    *rest, down = apart if apart[0] in stored else names  # the first: GGUF
    if len(rest) == 1:
        gate, up = (TensorRef(rest[0], start, spec.shared_size) for start in (0, spec.shared_size))
    else:
        gate, up = (TensorRef(name) for name in rest)
    name = f"{prefix}mlp.shared"
    refs: dict[str, Ref] = {f"{name}.gate_proj.weight": gate, f"{name}.up_proj.weight": up}
    refs[f"{name}.down_proj.weight"] = TensorRef(down, factor=factor)
    if experts.shared_gate:
        as_row = f"{prefix}mlp.shared_experts.gate.weight"
        own = TensorRef(f"{prefix}{experts.shared_gate}.weight")
        refs[f"{name}.router.weight"] = TensorRef(as_row, as_row=True) if as_row in stored else own
    return refs


def _of_expert(
    experts: Experts, spec: ExpertsSpec, prefix: str, expert: int, kind: str, stored: set[str]
) -> tuple[Ref, TensorRef]:
    """Gate-up and down of one expert, in whichever form they are stored."""
    apart = [f"{prefix}mlp.experts.{which}_proj" for which in ("gate", "up", "down")]
    if f"{apart[0]}.{kind}" in stored:  # GGUF: all experts of a matrix in one tensor
        gate, up, down = (TensorRef(f"{module}.{kind}", expert=expert) for module in apart)
        return Neighbours(gate, up), down
    suffix = "" if kind == "weight" else "_bias"
    gate_up, stacked_down = (f"{prefix}{name}{suffix}" for name in experts.stacked)
    if f"{gate_up}.rows" in stored:  # unpacked from MXFP4, which keeps outputs as rows
        return TensorRef(f"{gate_up}.rows", expert=expert), TensorRef(f"{stacked_down}.rows", expert=expert)
    if gate_up in stored and experts.transposed:
        turned = kind == "weight"
        return (
            TensorRef(gate_up, expert=expert, transposed=turned),
            TensorRef(stacked_down, expert=expert, transposed=turned),
        )
    if gate_up in stored:
        size = spec.intermediate_size
        halves = (TensorRef(gate_up, start=start, rows=size, expert=expert) for start in (0, size))
        return Neighbours(*halves), TensorRef(stacked_down, expert=expert)
    gate, up, down = (TensorRef(f"{prefix}{module.format(expert)}.{kind}") for module in experts.separate)
    return Neighbours(gate, up), down
