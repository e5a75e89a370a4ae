"""Layers that differ in more than their window: heads, shared keys and second embedding of Gemma 3n and 4.

The sources are transformers ``models/gemma3n`` and ``models/gemma4`` (``Gemma3nTextConfig``, ``Gemma4TextConfig``).
The last ``num_kv_shared_layers`` read keys and values of the last layer of their kind before them. In Gemma 4, layers
of full attention have wider heads than those with a window, and with ``attention_k_eq_v`` fewer of keys, whose matrix
makes the values too; layers that share keys have a wider MLP if ``use_double_wide_mlp``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgedistill.checkpoint.config_values import integer, mapping, number
from edgedistill.errors import CheckpointError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.architecture.family import Family
    from edgedistill.architecture.spec import LayerSpec

_HINT = "Compare config.json with the original model's."


@dataclass(frozen=True, slots=True)
class FullLayers:
    """Sizes of the layers of full attention: elements of a head, times that a key/value head is there (see
    ``LayerSpec``), and whether keys are values."""

    head_dim: int
    kv_repeats: int = 1
    values_are_keys: bool = False


def full_layers(config: Mapping[str, Any], full: tuple[int, ...], kv_heads: int, default: int) -> FullLayers:
    """Sizes of the layers ``full``: of ``global_head_dim`` and its like, or ``per_layer_config`` (transformers 5.24).

    Args:
        config: The content of config.json.
        full: Indices of layers.
        kv_heads: The model's number of key/value heads.
        default: Elements of a head where config.json says nothing.

    Raises:
        CheckpointError: A size is no number, or differs among them.
        UnsupportedModelError: Layers differ in something else.
    """
    by_layer = mapping(config, "per_layer_config")
    shared = bool(config.get("attention_k_eq_v"))
    if not by_layer:
        head_dim = integer(config, "global_head_dim", default)
        own = integer(config, "num_global_key_value_heads", kv_heads, null=kv_heads) if shared else kv_heads
        return FullLayers(head_dim, _repeats(kv_heads, own), shared)
    names = {int(index): index for index in by_layer if index.isdecimal() and len(index) < 10}
    sizes = set()
    for index, name in names.items():
        entry = mapping(by_layer, name)
        if index not in full or entry.keys() - {"head_dim", "num_key_value_heads"}:
            raise UnsupportedModelError(
                f"config.json has sizes of its own for layer {name[:20]} ({', '.join(sorted(entry))[:80]}); a head_dim "
                "and num_key_value_heads for layers of full attention are expected.",
                hint=_HINT,
            )
        sizes.add((integer(entry, "head_dim"), integer(entry, "num_key_value_heads", kv_heads)))
    if len(sizes) != 1 or len(by_layer) != len(full):
        raise CheckpointError(
            f"per_layer_config of config.json has {len(sizes)} sizes of heads for {len(by_layer)} layers; one size for "
            f"all {len(full)} layers of full attention is expected.",
            hint=_HINT,
        )
    head_dim, own = sizes.pop()
    return FullLayers(head_dim, _repeats(kv_heads, own), shared)


def _repeats(kv_heads: int, own: int) -> int:
    """Caches have one number of heads: those of fewer heads hold each of them several times."""
    if kv_heads % own:
        raise UnsupportedModelError(
            f"Layers of full attention have {own} key/value heads, the others {kv_heads}; a divisor of that is "
            "expected.",
            hint=_HINT,
        )
    return kv_heads // own


def with_sizes(
    config: Mapping[str, Any], family: Family, layers: tuple[LayerSpec, ...], sizes: FullLayers, inner: int
) -> tuple[LayerSpec, ...]:
    """``layers`` with the sizes that are not the model's, and with whose keys they read.

    Args:
        config: The content of config.json.
        family: The model's row.
        layers: With their windows, and with MLPs of their own sizes if the family has ``altup``.
        sizes: Of the layers of full attention.
        inner: Inner size of the model's MLP.

    Raises:
        CheckpointError: The last layer of a Gemma 4 has a window, or layers read keys of a kind that none before them
            has.
    """
    shared = number(config, "num_kv_shared_layers", family.shared_layers)
    ends_full = layers[-1].sliding_window is None
    if shared not in range(len(layers)) or not (ends_full or family.altup):
        raise CheckpointError(
            f"config.json has num_kv_shared_layers = {shared:g} for {len(layers)} layers, of which the last has "
            f"{'no' if ends_full else 'a'} window; fewer than all, and a last one without a window, are expected.",
            hint=_HINT,
        )
    first = len(layers) - int(shared)
    wide = bool(config.get("use_double_wide_mlp")) and not family.altup
    makers = {layer.sliding_window is None: layer.index for layer in layers[:first]}
    found = []
    for layer in layers:
        is_full = layer.sliding_window is None
        sized = layer
        if is_full and family.full_head_dim:
            sized = replace(
                layer,
                head_dim=sizes.head_dim,
                kv_repeats=sizes.kv_repeats,
                values_are_keys=sizes.values_are_keys,
            )
        if layer.index >= first:
            if is_full not in makers:
                raise CheckpointError(
                    f"config.json has num_kv_shared_layers = {shared:g}, so that layer {layer.index} has no layer of "
                    "its kind before it whose keys it could read.",
                    hint=_HINT,
                )
            sized = replace(sized, keys_of=makers[is_full])
            sized = replace(sized, intermediate_size=2 * inner) if wide else sized
        found.append(sized)
    return tuple(found)


def second_embedding(config: Mapping[str, Any], family: Family) -> tuple[int, int]:
    """Elements that each layer reads of the second embedding, and the rows of that; 0 and 0: there is none.

    Raises:
        CheckpointError: A Gemma 3n has none.
        UnsupportedModelError: A Gemma 4 has no row for some tokens; for those of images and sound, which come last,
            Gemma 3n reads the first row.
    """
    if family.altup:
        return integer(config, "hidden_size_per_layer_input", 256), integer(
            config, "vocab_size_per_layer_input", 262144
        )
    size = int(number(config, "hidden_size_per_layer_input", 256))
    if size <= 0:
        return 0, 0
    rows = integer(config, "vocab_size_per_layer_input", 262144)
    if rows < integer(config, "vocab_size"):
        raise UnsupportedModelError(
            f"config.json has {rows} rows in the embedding of the layers (vocab_size_per_layer_input) for a vocabulary "
            f"of {config['vocab_size']}; one for every token is expected.",
            hint=_HINT,
        )
    return size, rows
