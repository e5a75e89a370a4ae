"""ONNX Runtime session of a bundle's graph: options, threads, geometry.

One ``DecoderSession`` holds the weights; any number of decoders, each with its own cache, run on it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from edgedistill.bundle.bundle import MODEL, PREFILL_MODEL
from edgedistill.errors import BundleError, GenerationError
from edgedistill.runtime import packed_cache
from edgedistill.runtime.binding import first_line
from edgedistill.runtime.bit_planes import Widening
from edgedistill.runtime.decoder import Decoder
from edgedistill.runtime.kv_cache import CacheGeometry, KVCache, past_names
from edgedistill.runtime.packed_cache import PackedCache
from edgedistill.system.huge_pages import use_huge_pages_in_background

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgedistill.bundle.bundle import Bundle, LoadingFiles

DEFAULT_KV_STEP = 256
_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}

_CACHE_TYPES = {"tensor(float)": "float32", "tensor(int8)": "int8", "tensor(uint8)": "uint8"}


@dataclass(frozen=True, slots=True)
class SessionConfig:
    """Options of the session.

    ``threads``: 0 means one per physical core; more than that are never used (they slow decoding down).
    ``allow_spinning``: threads wait for work actively: some 20 % faster decoding for a busy core.
    """

    threads: int = 0
    allow_spinning: bool = True
    graph_optimization_level: str = "all"
    kv_step: int = DEFAULT_KV_STEP

    @classmethod
    def from_profile(cls, profile: Mapping[str, Any], *, threads: int | None = None) -> SessionConfig:
        """Options from a manifest's profile snapshot; missing keys take the defaults above."""
        session, context = profile.get("session", {}), profile.get("context", {})
        return cls(
            threads=int(session.get("intra_op_num_threads", 0)) if threads is None else threads,
            allow_spinning=bool(session.get("allow_spinning", True)),
            graph_optimization_level=str(session.get("graph_optimization_level", "all")),
            kv_step=int(context.get("kv_step", DEFAULT_KV_STEP)),
        )


def physical_cores() -> int:
    """Physical cores that this process may run on (at least 1)."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def usable_threads(config: SessionConfig) -> int:
    """Threads that a session of ``config`` gets; raises GenerationError for a negative number."""
    if config.threads < 0:
        raise GenerationError(f"threads is {config.threads}; expected 0 (one per physical core) or more.")
    cores = physical_cores()
    return min(config.threads or cores, cores)


def open_session(
    graph: bytes | Path,
    config: SessionConfig,
    *,
    name: str = MODEL,
    folder: Path | None = None,
    supplied: dict[str, ort.OrtValue] | None = None,
    save: Path | None = None,
) -> tuple[ort.InferenceSession, int]:
    """Session over a graph and the number of its threads; raises BundleError if it cannot be loaded.

    Args:
        graph: Serialized ModelProto, or the file of one.
        config: Options.
        name: Of the graph, for messages.
        folder: Where the external data of serialized bytes lies.
        supplied: Initializers that the graph lacks, by name; emptied.
        save: Directory in which to save the graph as it is run, with its packed weights (see ``packed_cache``).
    """
    threads = usable_threads(config)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, _LEVELS[config.graph_optimization_level])
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if config.allow_spinning else "0")
    # Work is handed out in shrinking pieces, so that one thread that was held up does not hold up the step.
    options.add_session_config_entry("session.dynamic_block_base", "4")
    # Matrices are packed for the kernels by all threads: the same bytes sooner, and no more memory of its own.
    options.add_session_config_entry("session.prepack.enable_parallel", "1")
    options.log_severity_level = 4  # an error is raised as well, and says the same
    options.add_session_config_entry("session.load_model_format", "ONNX")  # never what the bytes claim to be
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    if save is not None:
        options.optimized_model_filepath = str(save / packed_cache.GRAPH)
        options.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", packed_cache.WEIGHTS
        )
        options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
        options.add_session_config_entry("session.save_external_prepacked_constant_initializers", "1")
    supplied = {} if supplied is None else supplied
    for initializer in supplied:
        options.add_initializer(initializer, supplied[initializer])
    try:
        source = graph if isinstance(graph, bytes) else str(graph)
        session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base but this
        raise BundleError(
            f"ONNX Runtime cannot load {name}: {first_line(error)}.",
            hint="Check the bundle with: edgedistill inspect BUNDLE --verify",
        ) from error
    # The options go on naming what was supplied, which is now the session's alone: never another one from them.
    session.disable_fallback()
    supplied.clear()
    give_back_memory()
    return session, threads


def open_graph(
    files: LoadingFiles,
    name: str,
    config: SessionConfig,
    widening: Widening | None = None,
    *,
    bundle: Bundle | None = None,
) -> tuple[ort.InferenceSession, int]:
    """Session over a bundle's graph, or over the one that stands for it in ``widening``; see ``open_session``.

    With a ``bundle`` the user's cache of packed weights is used, if there is one with room and no matrix has to be
    supplied.
    """
    needed = widening is not None and widening.is_needed(name)
    cache = PackedCache.of_environment() if bundle is not None and bundle.states and not needed else None
    if cache is None or bundle is None:
        return _open_supplied(files, name, config, widening)
    key = packed_cache.entry_key(bundle, name, {"level": config.graph_optimization_level})
    if (entry := cache.find(key)) is not None:
        with contextlib.suppress(BundleError):  # one that cannot be read is made anew
            saved = replace(config, graph_optimization_level="disable")
            return open_session(entry.graph, saved, name=name, folder=entry.folder)
    with cache.making(key, bundle) as folder:
        opened = None
        if folder is not None:
            try:
                opened = open_session(files.graph(name), config, name=name, folder=files.location, save=folder)
            except BundleError:
                shutil.rmtree(folder)  # the disk may be full: there will be no entry
        if opened is None:
            opened = _open_supplied(files, name, config, widening)
        files.require_all_same()  # what was packed is what was checked
    return opened


def _open_supplied(
    files: LoadingFiles, name: str, config: SessionConfig, widening: Widening | None
) -> tuple[ort.InferenceSession, int]:
    name, supplied = (name, {}) if widening is None else widening.supply(name)
    opened = open_session(files.graph(name), config, name=name, folder=files.location, supplied=supplied)
    if widening is not None:
        widening.packed()
    return opened


def give_back_memory() -> None:
    """Return what loading freed to the system. A graph that widens codes of 5 or 6 bits by itself takes several copies
    of every matrix, which glibc would keep (SmolLM2-135M in int6: 1,135 MB resident after loading, 291 MB after this).
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class DecoderSession:
    """The loaded graph of a bundle with the ``edgedistill`` signature (see graph/decoder.py).

    Where the bundle has a second form of its layers, ``wide`` is the session of that: it serves exact steps and steps
    of several tokens, over the same KV cache. Else it is ``raw``.
    """

    def __init__(self, bundle: Bundle, config: SessionConfig | None = None) -> None:
        """Load the graphs of ``bundle``; raises BundleError if ONNX Runtime refuses them or their inputs are others."""
        self.config = config or SessionConfig()
        self.info = info = bundle.manifest.model
        with bundle.loading() as files:
            widening = Widening.of_bundle(bundle, files, threads=usable_threads(self.config))
            self.raw, self.threads = open_graph(files, MODEL, self.config, widening, bundle=bundle)
            self.wide = self.raw
            if bundle.has_file(PREFILL_MODEL):
                # Its steps are long: threads that wait for work would only take time from the other session's.
                quiet = replace(self.config, allow_spinning=False)
                self.wide, _ = open_graph(files, PREFILL_MODEL, quiet, widening, bundle=bundle)
        found = {value.name: value.type for value in self.raw.get_inputs()}
        states, layers = tuple((state.name, state.shape) for state in info.states), info.attention_layers
        shapes = {value.name: tuple(value.shape[1:]) for value in self.raw.get_inputs()}
        listed = [(f"past_state.{name}", shape) for name, shape in states]
        if not layers or sorted(listed) != sorted(one for one in shapes.items() if one[0].startswith("past_state.")):
            raise BundleError(f"{MODEL} and manifest.json differ in their states.", hint="Export the bundle again.")
        last = past_names(layers)[-1]
        missing = {"input_ids", "seqlens_k", "query_seqlens", "logit_index", last} - found.keys()
        if missing:
            raise BundleError(f"{MODEL} has no input {sorted(missing)[0]}.", hint="Export the bundle again.")
        self.geometry = CacheGeometry(
            layers,
            info.num_key_value_heads,
            info.head_dim,
            info.context_length,
            dtype=_CACHE_TYPES[found[last]],
            states=states,
            head_dims=info.cache_head_dims,
            readers=info.readers,
        )
        self._decoding, self._size = False, bundle.size

    def decoding(self) -> None:
        """Have the weights moved into huge pages, once, in the background; the first token has not waited for it."""
        if not self._decoding:
            self._decoding = True
            use_huge_pages_in_background(self._size)

    def decoder(self, batch: int = 1) -> Decoder:
        """A decoder with an empty cache of ``batch`` rows."""
        return Decoder(self, KVCache(self.geometry, batch, step=self.config.kv_step))
