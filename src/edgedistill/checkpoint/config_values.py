"""Values of a config.json, checked as they are read: a wrong type is a user's error, not a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedistill.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_VOCABULARY = 4 << 20
_MOST = {
    "num_hidden_layers": 1024,
    "head_dim": 1024,
    "vocab_size": MAX_VOCABULARY,
    "hidden_size": 1 << 17,
    "num_attention_heads": 1 << 17,
    "num_key_value_heads": 1 << 17,
    "intermediate_size": 1 << 20,
    "altup_num_inputs": 64,
    "max_position_embeddings": 1 << 26,
}
"""More than any model has: what follows loops over some of these numbers and allocates by others."""
_MOST_OTHERWISE = 1 << 31
_LARGEST = 1e300
_HINT = "Compare config.json with the original model's."


def integer(config: Mapping[str, Any], key: str, default: int | None = None, *, null: int | None = None) -> int:
    """``config[key]`` as a positive integer; ``default`` if the key is missing, ``null`` if its value is null.

    Raises CheckpointError if the value is anything else, or missing with no default.
    """
    value = config.get(key, default)
    if value is None:
        value = null
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise CheckpointError(f"config.json has {key} = {value!r}; a positive integer is expected.", hint=_HINT)
    most = _MOST.get(key, _MOST_OTHERWISE)
    if value > most:
        raise CheckpointError(f"config.json has {key} = {value}; at most {most} is expected.", hint=_HINT)
    return value


def number(config: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """``config[key]`` as a finite float; ``default`` if it is missing or null. Raises CheckpointError otherwise."""
    value = config.get(key)
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
        raise CheckpointError(f"config.json has {key} = {value!r}; a number is expected.", hint=_HINT)
    return float(value)


def optional_number(config: Mapping[str, Any], key: str, default: float | None = None) -> float | None:
    """Like ``number``, but a value of null means None."""
    return None if config.get(key, default) is None else number(config, key, default)


def per_layer(config: Mapping[str, Any], key: str, count: int) -> tuple[Any, ...] | None:
    """``config[key]`` as a list of ``count`` values, None if missing or null. Raises CheckpointError otherwise."""
    values = config.get(key)
    if values is None:
        return None
    if not isinstance(values, list | tuple) or len(values) != count:
        raise CheckpointError(f"config.json has {key} = {values!r}; a list of {count} values is expected.", hint=_HINT)
    return tuple(values)


def mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """``config[key]`` as an object, empty if missing or null. Raises CheckpointError if it is anything else."""
    value = config.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise CheckpointError(f"config.json has {key} = {value!r}; an object is expected.", hint=_HINT)
    return value
