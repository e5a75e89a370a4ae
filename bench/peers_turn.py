"""One turn of one engine in this process, as JSON: ``peers.py`` starts it, in the environment that has the engine.

Imports nothing of edgedistill unless the engine is edgedistill: it also runs in the peers' own environment.

    python bench/peers_turn.py ENGINE MODEL --context 64 512 --new-tokens 48 --threads 2 --batch 1 4
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

SKIPPED = 4


class LlamaCpp:
    """llama-cpp-python over a GGUF; one sequence."""

    def __init__(self, model: str, threads: int, longest: int) -> None:
        import llama_cpp

        self._cpp = llama_cpp
        self._llama = llama_cpp.Llama(
            model, n_ctx=longest, n_threads=threads, n_threads_batch=threads, n_batch=512, verbose=False
        )
        self.version = f"llama-cpp-python {llama_cpp.__version__}"
        self.vocab = int(self._llama.n_vocab())

    def prefill(self, ids: list[int]) -> None:
        self._llama.reset()
        self._llama.eval(ids)

    def step(self) -> None:
        # The likeliest token as every engine here finds it; the wrapper's own sampler sorts the vocabulary in Python.
        logits = self._cpp.llama_get_logits_ith(self._llama.ctx, -1)
        self._llama.eval([int(np.ctypeslib.as_array(logits, (self.vocab,)).argmax())])


class LlamaCppWheel:
    """The same by the C functions of llama-cpp-py-sync's wheel, which is built for AVX2."""

    def __init__(self, model: str, threads: int, longest: int) -> None:
        from llama_cpp_py_sync import __llama_cpp_tag__
        from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

        self._ffi, self._lib = ffi, lib = get_ffi(), get_lib()
        silent = ffi.callback("ggml_log_callback", lambda *_: None)
        self._kept = [silent]
        lib.llama_log_set(silent, ffi.NULL)
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(model.encode(), lib.llama_model_default_params())
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_threads, params.n_threads_batch = longest, 512, threads, threads
        self._context = lib.llama_init_from_model(self._model, params) if self._model else ffi.NULL
        if not self._context:
            raise SystemExit(f"llama.cpp cannot load {model}")
        self.version = f"llama.cpp {__llama_cpp_tag__}"
        self.vocab = int(lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self._model)))

    def prefill(self, ids: list[int]) -> None:
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), False)
        for start in range(0, len(ids), 512):
            self._decode(ids[start : start + 512])

    def step(self) -> None:
        logits = self._lib.llama_get_logits_ith(self._context, -1)
        values = np.frombuffer(self._ffi.buffer(logits, 4 * self.vocab), dtype=np.float32)
        self._decode([int(values.argmax())])

    def _decode(self, ids: list[int]) -> None:
        tokens = self._ffi.new("llama_token[]", ids)
        if self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(tokens, len(ids))):
            raise SystemExit("llama.cpp cannot decode")


def llama(model: str, threads: int, longest: int) -> Any:
    """llama.cpp as it is installed."""
    kind = LlamaCpp if importlib.util.find_spec("llama_cpp") else LlamaCppWheel
    return kind(model, threads, longest)


class OpenVino:
    """OpenVINO GenAI over the same GGUF: its pipeline generates, so that steps are what a longer reply takes longer."""

    def __init__(self, model: str, threads: int, longest: int) -> None:
        import openvino_genai

        self._genai = openvino_genai
        self._pipe = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)
        self.version = f"openvino-genai {openvino_genai.__version__.split('-')[0]}"
        self.vocab = 1000
        self._ids: list[int] = []
        _ = longest

    def generate(self, ids: list[int], new_tokens: int) -> None:
        """Answer a prompt with so many tokens."""
        import openvino

        tensor = openvino.Tensor(np.asarray([ids], dtype=np.int64))
        inputs = self._genai.TokenizedInputs(tensor, openvino.Tensor(np.ones_like(np.asarray([ids], dtype=np.int64))))
        self._pipe.generate(inputs, max_new_tokens=new_tokens, ignore_eos=True, do_sample=False)


class Genai:
    """onnxruntime-genai over our bundle's directory."""

    def __init__(self, model: str, threads: int, longest: int) -> None:
        import onnxruntime_genai

        self._og = onnxruntime_genai
        config = onnxruntime_genai.Config(model)
        decoder = {"session_options": {"intra_op_num_threads": threads}}
        config.overlay(json.dumps({"model": {"decoder": decoder, "eos_token_id": [5]}}))
        self._model = onnxruntime_genai.Model(config)
        self.version = f"onnxruntime-genai {onnxruntime_genai.__version__}"
        self.vocab = 1000
        self._longest = longest

    def prefill(self, ids: list[int]) -> None:
        params = self._og.GeneratorParams(self._model)
        params.set_search_options(max_length=self._longest, do_sample=False)
        self._generator = self._og.Generator(self._model, params)
        self._generator.append_tokens(np.asarray(ids, dtype=np.int32))

    def step(self) -> None:
        self._generator.generate_next_token()


class Ours:
    """The runtime of this project; several sequences too."""

    def __init__(self, model: str, threads: int, longest: int) -> None:
        from edgedistill._version import __version__
        from edgedistill.runtime.model import open_bundle

        self._model = open_bundle(model, threads=threads)
        self.version = f"edgedistill {__version__}"
        self.vocab = self._model.bundle.manifest.model.vocab_size
        self._decoder: Any = self._model.session.decoder()
        _ = longest

    def prefill(self, ids: list[int]) -> None:
        self._decoder.truncate(0)
        chunk = self._model.prefill_chunk
        for start in range(0, len(ids), chunk):
            part = ids[start : start + chunk]
            self._logits = self._decoder.feed(part, exact=True, logits=start + chunk >= len(ids))

    def step(self) -> None:
        self._logits = self._decoder.feed([int(self._logits.argmax())])

    def batch(self, ids: list[int], rows: int) -> Any:
        """A step of ``rows`` sequences that all begin with ``ids``."""
        self.prefill(ids)
        decoder = self._decoder.select([0] * rows)
        token = np.full((rows, 1), ids[-1], dtype=np.int64)
        return lambda: decoder.step(token)


ENGINES = {"llama.cpp": llama, "OpenVINO": OpenVino, "onnxruntime-genai": Genai, "edgedistill": Ours}


def memory() -> dict[str, int]:
    """Bytes of this process: anonymous now, and the highest resident size so far (Linux)."""
    found = dict.fromkeys(("RssAnon", "VmHWM"), 0)
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in found:
            found[name] = int(value.split()[0]) * 1024
    return found


def main() -> None:
    """Load, one prompt that does not count, then every context length."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("engine", choices=list(ENGINES))
    parser.add_argument("model")
    parser.add_argument("--context", type=int, nargs="+", default=[64])
    parser.add_argument("--batch", type=int, nargs="*", default=[])
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processor-time", action="store_true", help="instead of the clock's")
    args = parser.parse_args()
    clock = time.process_time if args.processor_time else time.perf_counter
    base = memory()["RssAnon"]
    begun = clock()
    engine: Any = ENGINES[args.engine](args.model, args.threads, max(args.context) + args.new_tokens + 8)
    load = clock() - begun
    rng = np.random.default_rng(0)
    vocab = min(1000, engine.vocab)
    prefill, decode, batch = {}, {}, {}
    for length in [16, *args.context]:
        ids = rng.integers(10, vocab, size=length).tolist()
        if isinstance(engine, OpenVino):
            begun = clock()
            engine.generate(ids, 1)
            first = clock() - begun
            begun = clock()
            engine.generate(ids[::-1], 1 + args.new_tokens)  # another prompt, of which nothing is kept
            prefill[length], decode[length] = length / first, args.new_tokens / (clock() - begun - first)
            continue
        begun = clock()
        engine.prefill(ids)
        prefill[length] = length / (clock() - begun)
        for index in range(SKIPPED + args.new_tokens):
            if index == SKIPPED:
                begun = clock()
            engine.step()
        decode[length] = args.new_tokens / (clock() - begun)
    kept = memory()
    if isinstance(engine, Ours):
        for rows in args.batch:
            step = engine.batch(ids[:64], rows)
            step()
            begun = clock()
            for _ in range(args.new_tokens):
                step()
            batch[rows] = rows * args.new_tokens / (clock() - begun)
    del prefill[16], decode[16]
    sys.stdout.write(
        json.dumps(
            {
                "version": engine.version,
                "load": load,
                "prefill": prefill,
                "decode": decode,
                "batch": batch,
                "private": kept["RssAnon"] - base,
                "peak": kept["VmHWM"],
            }
        )
        + "\n"
    )


if __name__ == "__main__":
    main()
