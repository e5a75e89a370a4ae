"""Chooses the scales of a quantized KV cache from the largest keys and values that the model makes.

The finished weights run with a float32 cache in a separate process, which leaves the maxima in a file. By default they
run over texts that the model itself writes, since those are what the cache will hold later. Models too large to run
whole are run in slices of a few layers, and then only over the prompts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.bundle.bundle import TOKENIZER, WEIGHTS, Bundle, hash_file
from edgedistill.bundle.manifest import FileEntry, Manifest
from edgedistill.errors import EdgedistillError, ExportError
from edgedistill.quantize.kv import Granularity, KvScales, kv_scales, rotated_maxima
from edgedistill.system.child import run_in_child

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy.typing as npt

    from edgedistill.architecture.spec import ModelSpec
    from edgedistill.profile.profile import KvCache
    from edgedistill.progress import Progress
    from edgedistill.runtime.model import Model

    Cached = Iterator[tuple[int, npt.NDArray[np.float32], npt.NDArray[np.float32]]]

NEW_TOKENS = 160
PROMPTS = (
    "A train leaves at 9:40 and arrives at 13:05. How long is the journey? Think step by step.",
    "Write a Python function that returns the n-th Fibonacci number, and explain it.",
    "Explain in simple words why the sky is blue.",
    "Translate into French and German: The museum opens at ten, but the garden is closed today.",
    "Write a short story about a lighthouse keeper and a storm.",
    "List five differences between copper and aluminium as a table.",
    "If 3x + 7 = 31, what is x? Check your answer.",
    "Summarise the causes of the French Revolution in a few sentences.",
)
_MAXIMA = ".kv_maxima.npz"


@dataclass(frozen=True, slots=True)
class Calibration:
    """Scales, and the number of ``tokens`` they come from; ``source`` is ``own texts``, ``prompts`` or ``given``."""

    scales: KvScales
    source: str
    tokens: int


def calibrate(
    directory: Path,
    manifest: Manifest,
    spec: ModelSpec,
    cache: KvCache,
    *,
    key_norms: Sequence[npt.NDArray[np.float32]] | None = None,
    sequences: Sequence[npt.NDArray[np.int64]] | None = None,
    progress: Progress,
) -> Calibration:
    """Calibrate the scales for the bundle that is being made in ``directory``.

    Args:
        directory: Holds the graph with a float32 cache, the weights, the tokenizer and the template.
        manifest: Of that bundle; its list of files may be empty.
        spec: The model, for the rotary frequencies of its layers.
        cache: The requested format.
        key_norms: Weights float32 [head_dim] of each attention layer's norm of keys, where it comes after RoPE.
        sequences: Token ids int64 [n] to run; None: texts that the model writes on built-in prompts.
        progress: Receives tokens.

    Raises:
        ExportError: The model does not run, or its keys or values are not finite.
    """
    request = {
        "manifest": _with_present_files(directory, manifest).to_json(),
        "sequences": None if sequences is None else [np.asarray(s).tolist() for s in sequences],
        "inv_freq": frequencies(spec, manifest.model.context_length),
        "key_norms": None if key_norms is None else [weights.tolist() for weights in key_norms],
    }
    progress.begin("calibrating the KV cache", 0, "tokens")
    try:
        outcome = run_in_child(write_maxima, str(directory), request, progress=progress)
        with np.load(directory / _MAXIMA) as maxima:
            key, value = ([maxima[f"{kind}.{i}"] for i in range(len(maxima) // 2)] for kind in ("key", "value"))
    except EdgedistillError as error:
        raise ExportError(
            f"Calibrating the KV cache failed ({error}).",
            hint="Export with --kv-cache float32, or free memory and try again.",
        ) from error
    finally:
        (directory / _MAXIMA).unlink(missing_ok=True)
    progress.end()
    if not all(np.isfinite(part).all() for part in (*key, *value)):
        raise ExportError(
            "Keys or values of the model are not finite, so that its KV cache cannot be quantized.",
            hint="Export with --kv-cache float32 and try the bundle with: edgedistill run",
        )
    granularity: Granularity = "per-tensor" if cache.scales == "per-tensor" else "per-channel"
    scales = kv_scales(key, value, bits=cache.bits, granularity=granularity)
    return Calibration(scales, outcome["source"], outcome["tokens"])


def frequencies(spec: ModelSpec, context: int) -> list[list[float] | None]:
    """Rotary frequencies of each attention layer in a bundle of this context, None where nothing is rotated."""
    ropes = [spec.layers[index].rope for index in spec.attention_layers]
    return [None if rope is None else list(rope.frequencies(context)) for rope in ropes]


def _with_present_files(directory: Path, manifest: Manifest) -> Manifest:
    """The manifest with the files present, without the hash of the weights: enough to open the bundle for a run."""
    import dataclasses

    files = (
        FileEntry(p.name, p.stat().st_size, "" if p.name == WEIGHTS else hash_file(p))
        for p in sorted(directory.iterdir())
        if p.is_file()
    )
    return dataclasses.replace(manifest, files=tuple(files))


# ---- in the child process -----------------------------------------------------------------------------------


def maxima_of(
    cached: Iterable[tuple[int, npt.NDArray[np.float32], npt.NDArray[np.float32]]],
    inv_freq: Sequence[Sequence[float] | None],
    context: int,
    key_norms: Sequence[Sequence[float]] | None = None,
) -> tuple[list[npt.NDArray[np.float32]], list[npt.NDArray[np.float32]]]:
    """Largest magnitudes of keys and of values per channel: for each attention layer float32 [heads, head_dim].

    Args:
        cached: Any number of times per layer: its index among the attention layers, and its keys and values float32
            [heads, tokens, head_dim] from position 0 on.
        inv_freq: Rotary frequencies by layer. Where they are known, a key counts with its largest magnitudes under
            rotation to any position of the context (see ``rotated_maxima``).
        context: Length of the context in tokens.
        key_norms: Weights of a norm between RoPE and the cache, by layer: what turns is the key without them.

    Raises:
        ValueError: ``cached`` has nothing of a layer.
    """
    layers = len(inv_freq)
    key: list[npt.NDArray[np.float32] | None] = [None] * layers
    value: list[npt.NDArray[np.float32] | None] = [None] * layers
    for layer, keys, values in cached:
        frequencies = inv_freq[layer]
        if frequencies is None:
            largest = np.abs(keys).max(axis=1, initial=0)
        else:
            weights = np.abs(np.asarray(key_norms[layer] if key_norms else 1, np.float32))
            turned = np.divide(keys, weights, out=np.zeros_like(keys), where=weights > 0)
            positions = np.arange(keys.shape[1])
            largest = weights * rotated_maxima(turned, np.asarray(frequencies, np.float32), positions, context)
        here = np.abs(values).max(axis=1, initial=0)
        known_key, known_value = key[layer], value[layer]
        key[layer] = largest if known_key is None else np.maximum(known_key, largest)
        value[layer] = here if known_value is None else np.maximum(known_value, here)
    if any(part is None for part in (*key, *value)):
        raise ValueError("a layer without keys or values")
    return [k for k in key if k is not None], [v for v in value if v is not None]


def write_maxima(path: str, request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Run the texts of ``request`` in this process and write the maxima; returns source and number of tokens."""
    from edgedistill.export.trial_run import WHOLE_LIMIT

    directory, manifest = Path(path), Manifest.from_json(request["manifest"])
    given = request["sequences"]
    limit = manifest.model.context_length
    if (directory / WEIGHTS).stat().st_size > WHOLE_LIMIT:
        sequences = given or _prompts(directory)
        source = "given" if given else "prompts"
        cached = _through_slices(directory, manifest, [s[:limit] for s in sequences], progress)
    else:
        from edgedistill.runtime.model import Model

        model = Model(Bundle(directory, manifest))
        sequences = given or _own_texts(model, progress)
        source = "given" if given else "own texts"
        cached = _through_session(model, [s[:limit] for s in sequences], progress)
    sequences = [s[:limit] for s in sequences if s]
    maxima = maxima_of(cached, request["inv_freq"], limit, request["key_norms"])
    found = dict(zip(("key", "value"), maxima, strict=True))
    with (directory / _MAXIMA).open("wb") as stream:
        arrays: dict[str, Any] = {f"{kind}.{i}": a for kind, parts in found.items() for i, a in enumerate(parts)}
        np.savez(stream, **arrays)
    return {"source": source, "tokens": sum(len(s) for s in sequences)}


def _prompts(directory: Path) -> list[list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
    return [tokenizer.encode(prompt, add_special_tokens=False).ids or [0] for prompt in PROMPTS]


def _own_texts(model: Model, progress: Progress) -> list[list[int]]:
    """Token ids of each prompt in the chat template with the model's reply, sampled with a fixed seed."""
    import dataclasses

    texts = []
    room = model.bundle.manifest.model.context_length
    for seed, prompt in enumerate(PROMPTS):
        ids = model.encode(model.render(prompt))[: max(1, room // 2)]
        settings = dataclasses.replace(
            model.default_settings, seed=seed, max_new_tokens=min(NEW_TOKENS, room - len(ids)), temperature=1.0
        )
        decoded = model.generate(prompt, settings=settings) if len(ids) < room // 2 else None
        texts.append([*ids, *(decoded.tokens if decoded else ())])
        progress.advance(len(texts[-1]))
    return texts


def _through_session(model: Model, sequences: Sequence[Sequence[int]], progress: Progress) -> Cached:
    for sequence in sequences:
        decoder: Any = model.session.decoder()
        for start in range(0, len(sequence), model.prefill_chunk):
            decoder.feed(sequence[start : start + model.prefill_chunk], logits=False)
        buffers = decoder.cache.buffers
        for layer in range(len(buffers) // 2):
            yield layer, buffers[2 * layer][0, :, : len(sequence)], buffers[2 * layer + 1][0, :, : len(sequence)]
        progress.advance(len(sequence))


def _through_slices(
    directory: Path, manifest: Manifest, sequences: Sequence[Sequence[int]], progress: Progress
) -> Cached:
    from edgedistill.export.calibrate import sliced_run as sliced

    order = manifest.model.attention_layers
    for layer, keys, values in sliced.sweep(directory, manifest, sequences):
        progress.advance(0)
        yield order.index(layer), keys, values
