"""Checks that keep the fallback exporter from being silently wrong.

Every key of the config has to be one that transformers reads, and the traced graph has to give the logits of the model
that it was traced from.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.checkpoint.config_values import mapping
from edgedistill.checkpoint.rope_spelling import readable_rope
from edgedistill.errors import CheckpointError, ExportError, UnsupportedModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy.typing as npt

    Logits = npt.NDArray[np.float32]

_LENGTHS = (5, 33)
TOLERANCE = 2e-3
"""Largest difference of logits, in units of their standard deviation: float32 operations in another order."""
# Keys without influence on the arithmetic.
_NEUTRAL = frozenset({
    "_name_or_path", "_attn_implementation", "architectures", "attn_implementation", "auto_map", "dtype", "model_type",
    "tokenizer_class", "torch_dtype", "transformers_version", "unsloth_fixed", "unsloth_version", "use_cache",
})  # fmt: skip
# RoPE kinds that depend on the length of the input: a trace keeps the values of the traced length.
_LENGTH_DEPENDENT = ("dynamic", "longrope", "su")


def read_config(config: Mapping[str, Any], auto_config: Any, *, allow_unused: bool) -> Any:
    """The transformers config of a checkpoint's config.json.

    Args:
        config: Content of config.json, of transformers 4 or 5.
        auto_config: ``transformers.AutoConfig``.
        allow_unused: Accept keys that the installed transformers does not know.

    Raises:
        CheckpointError: Keys that would be ignored.
        UnsupportedModelError: RoPE parameters that a trace cannot keep, or that transformers rejects.
    """
    values = {k: v for k, v in config.items() if k not in ("model_type", "auto_map", "torch_dtype", "dtype")}
    kind = str(config["model_type"])
    known = _known_keys(auto_config.for_model(kind))
    values = readable_rope(values, known)
    rope = mapping(values, "rope_parameters") or mapping(values, "rope_scaling")
    name = str(rope.get("rope_type") or rope.get("type") or "default")
    if name in _LENGTH_DEPENDENT:
        raise UnsupportedModelError(
            f"The model's RoPE ({name}) changes with the length of its input, which a traced graph cannot follow.",
            hint="Neither exporter can export this model.",
        )
    unknown = sorted(key for key in values if key not in known and key not in _NEUTRAL)
    if unknown and not allow_unused:
        import transformers  # noqa: TID251

        raise CheckpointError(
            f"config.json has {', '.join(unknown[:5])}, which transformers {transformers.__version__} does not know "
            f"for a {kind} model and would ignore.",
            hint="The result could compute something else. To ignore them all the same: --allow-unused",
        )
    try:
        return auto_config.for_model(kind, **values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise refused_config(kind, error) from error


def refused_config(kind: str, error: Exception) -> UnsupportedModelError:
    """The error to raise if transformers fails with ``error`` on the config of a model of type ``kind``."""
    return UnsupportedModelError(
        f"transformers refuses the config of this {kind} model ({type(error).__name__}: {_first_line(error)}).",
        hint="Compare config.json with the original model's.",
    )


def _known_keys(example: Any) -> set[str]:
    """Keys that the config class or its bases accept as arguments or have as attributes."""
    names: set[str] = set(vars(example)) | set(getattr(example, "attribute_map", {}))
    for base in type(example).__mro__:
        if "__init__" in vars(base):
            names |= set(inspect.signature(vars(base)["__init__"]).parameters)
    return {
        name.removeprefix("_") if name.startswith("_") and not name.startswith("__") else name for name in names
    } | names


def reference_logits(model: Any) -> list[tuple[list[int], Logits]]:
    """Some prompts of random tokens, with the model's logits float32 [S, V] for each."""
    import torch  # noqa: TID251

    generator = np.random.default_rng(0)
    longest = int(getattr(model.config, "max_position_embeddings", None) or max(_LENGTHS))
    results = []
    for length in sorted({min(length, longest) for length in _LENGTHS}):
        tokens: list[int] = generator.integers(0, int(model.config.vocab_size), length).tolist()
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].float().numpy()
        results.append((tokens, logits))
    return results


def prove(path: Path, expected: list[tuple[list[int], Logits]]) -> None:
    """Raises ExportError unless the traced graph at ``path`` gives the ``expected`` logits."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for tokens, logits in expected:
        feeds: dict[str, Any] = {}
        for value in session.get_inputs():
            if value.name == "input_ids":
                feeds[value.name] = np.array([tokens], dtype=np.int64)
            elif value.name == "attention_mask":
                feeds[value.name] = np.ones((1, len(tokens)), dtype=np.int64)
            elif value.name == "position_ids":
                feeds[value.name] = np.arange(len(tokens), dtype=np.int64)[None]
            else:
                shape = [size if isinstance(size, int) else 0 for size in value.shape]
                feeds[value.name] = np.zeros([1, *shape[1:]], dtype=np.float32)
        found = session.run(["logits"], feeds)[0][0]
        spread = float(logits.std()) or 1.0
        if found.shape != logits.shape or not np.abs(found - logits).max() <= TOLERANCE * spread:
            agree = float((found.argmax(-1) == logits.argmax(-1)).mean()) if found.shape == logits.shape else 0.0
            raise ExportError(
                f"The traced graph gives other logits than the model in transformers ({100 * agree:.0f} % of "
                f"{len(tokens)} tokens have the same first choice).",
                hint="Nothing was left at the output path. Neither exporter can export this model.",
            )


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
