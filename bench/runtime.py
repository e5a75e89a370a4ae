"""Compares the decode loop with onnxruntime-genai's on the same bundle with the same threads, in turn in one run.

Both engines read the same weights file of the same directory: ours through model.onnx, onnxruntime-genai through
model-genai.onnx. Each round runs both in alternating order, each in a process of its own: two sessions in one process
disturb each other, and the place of the weights in memory changes the speed by several per cent, so every round loads
them again. The result is the ratio within a round, since a machine that slows down slows both.

    python bench/runtime.py [--bundle DIR] [--format int4-b32] [--threads 2] [--rounds 7] [--json FILE]

On a machine that is busy with other things, --threads 1 --clock cpu measures the processor time of the decoding thread.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import onnxruntime_genai as og
from tokenizers import Tokenizer

from edgedistill import export
from edgedistill.bundle.bundle import TOKENIZER, Bundle
from edgedistill.runtime.generate import TokenLoop
from edgedistill.runtime.model import Model
from edgedistill.runtime.sampling import NoiseKey, Sampler
from edgedistill.runtime.session import physical_cores
from edgedistill.runtime.settings import GenerationSettings

if TYPE_CHECKING:
    from collections.abc import Callable

SKIPPED_STEPS = 8
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}
TEXT = (
    "A train leaves the station at nine in the morning and travels at sixty kilometres an hour. A second train leaves "
    "one hour later on the same track at ninety kilometres an hour. Explain step by step when the second train reaches "
    "the first, how far both have travelled by then, and what changes if the first train stops for ten minutes. "
)


@dataclass(frozen=True)
class Turn:
    """One engine's turn: prompt tokens per second, decode steps per second, and the greedy tokens."""

    prefill_tps: float
    decode_tps: float
    tokens: list[int]


class Ours:
    """The runtime of this project: the loop that ``Model.generate`` runs, without detokenizing."""

    name = "edgedistill"

    def __init__(self, model: Model) -> None:
        self._model = model
        self._decoder: Any = model.session.decoder()

    def turn(self, prompt: list[int], new_tokens: int, clock: Callable[[], float]) -> Turn:
        info = self._model.bundle.manifest.model
        settings = GenerationSettings(temperature=0.0, max_new_tokens=new_tokens, ignore_eos=True)
        sampler = Sampler(settings, NoiseKey.of(0), vocab_size=info.vocab_size)
        self._decoder.truncate(0)
        loop = TokenLoop(self._decoder, sampler, settings, context_length=info.context_length, eos=())
        start = clock()
        for _ in loop.prefill(prompt, chunk=self._model.prefill_chunk):
            pass
        prefill = clock() - start
        tokens, stamps = [], []
        for token in loop:
            stamps.append(clock())
            tokens.append(token)
        return _turn(prompt, prefill, tokens, stamps)


class Genai:
    """onnxruntime-genai over the same directory."""

    name = "onnxruntime-genai"

    def __init__(self, path: Path, threads: int, vocab_size: int) -> None:
        config = og.Config(str(path))
        # Without it the engine behaves like one thread. The end-of-sequence token is moved out of the way.
        decoder = {"session_options": {"intra_op_num_threads": threads}}
        config.overlay(json.dumps({"model": {"decoder": decoder, "eos_token_id": [vocab_size - 1]}}))
        self._model = og.Model(config)

    def turn(self, prompt: list[int], new_tokens: int, clock: Callable[[], float]) -> Turn:
        params = og.GeneratorParams(self._model)
        params.set_search_options(max_length=len(prompt) + new_tokens, do_sample=False)
        generator = og.Generator(self._model, params)
        start = clock()
        generator.append_tokens(np.asarray(prompt, dtype=np.int32))
        prefill = clock() - start
        tokens, stamps = [], []
        while not generator.is_done():
            generator.generate_next_token()
            tokens.append(int(generator.get_next_tokens()[0]))
            stamps.append(clock())
        return _turn(prompt, prefill, tokens, stamps)


def _turn(prompt: list[int], prefill: float, tokens: list[int], stamps: list[float]) -> Turn:
    counted = stamps[SKIPPED_STEPS:]
    return Turn(len(prompt) / prefill, (len(counted) - 1) / (counted[-1] - counted[0]), tokens)


def take_turn(engine: str, path: Path, *, threads: int, prompt_tokens: int, new_tokens: int, clock: str) -> Turn:
    """One engine's turn in this process: load, one turn that does not count, one that does."""
    bundle = Bundle.open(path)
    tokenizer = Tokenizer.from_file(str(bundle.file(TOKENIZER)))
    ids = tokenizer.encode(TEXT * (1 + prompt_tokens // 40), add_special_tokens=False).ids[:prompt_tokens]
    vocab_size = bundle.manifest.model.vocab_size
    running = Ours(Model(bundle, threads=threads)) if engine == Ours.name else Genai(path, threads, vocab_size)
    running.turn(ids, 2 * SKIPPED_STEPS, CLOCKS[clock])
    return running.turn(ids, new_tokens, CLOCKS[clock])


def compare(args: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Run both engines in turn, each in a process of its own, and return all numbers."""
    turns: dict[str, list[Turn]] = {Ours.name: [], Genai.name: []}
    for index in range(args.rounds):
        for engine in sorted(turns, reverse=bool(index % 2)):
            command = [sys.executable, __file__, "--turn", engine, "--bundle", str(path), "--clock", args.clock]
            for option in ("threads", "prompt_tokens", "new_tokens"):
                command += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            turns[engine].append(Turn(**json.loads(done.stdout.splitlines()[-1])))
    ours, genai = turns[Ours.name], turns[Genai.name]
    pairs = zip(ours[0].tokens, genai[0].tokens, strict=False)
    return {
        "bundle": path.name,
        "threads": args.threads,
        "clock": args.clock,
        "rounds": args.rounds,
        "prompt_tokens": args.prompt_tokens,
        "new_tokens": args.new_tokens,
        "versions": {"onnxruntime": onnxruntime.__version__, "onnxruntime-genai": og.__version__},
        "first_different_token": next((i for i, (a, b) in enumerate(pairs) if a != b), None),
        "decode": _summary([t.decode_tps for t in ours], [t.decode_tps for t in genai]),
        "prefill": _summary([t.prefill_tps for t in ours], [t.prefill_tps for t in genai]),
    }


def _summary(ours: list[float], genai: list[float]) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(ours, genai, strict=True)]
    return {"edgedistill": _spread(ours), "onnxruntime-genai": _spread(genai), "ratio": _spread(ratios)}


def _spread(values: list[float]) -> dict[str, Any]:
    return {"median": median(values), "min": min(values), "max": max(values), "values": values}


def markdown(result: dict[str, Any]) -> str:
    """The table for the README."""
    versions = result["versions"]
    lines = [
        f"{result['bundle']}, {result['threads']} threads, prompt {result['prompt_tokens']}, "
        f"{result['new_tokens']} new tokens, {result['rounds']} rounds in turn, {result['clock']} time "
        f"(onnxruntime {versions['onnxruntime']}, "
        f"onnxruntime-genai {versions['onnxruntime-genai']})",
        "",
        "| tokens/s, median (min - max) | edgedistill | onnxruntime-genai | ratio per round |",
        "|---|---|---|---|",
    ]
    for name in ("decode", "prefill"):
        row = result[name]
        cells = [_cell(row["edgedistill"], 0), _cell(row["onnxruntime-genai"], 0), _cell(row["ratio"], 2)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(spread: dict[str, Any], digits: int) -> str:
    return f"{spread['median']:.{digits}f} ({spread['min']:.{digits}f} - {spread['max']:.{digits}f})"


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="measure this bundle instead of exporting one")
    parser.add_argument("--model", default="smollm2-135m", help="model to export (default: smollm2-135m)")
    parser.add_argument("--format", default="int4-b32", help="weight format to export (default: int4-b32)")
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--json", type=Path, help="write all numbers to this file")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--turn", choices=(Ours.name, Genai.name), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.turn:
        options = {name: getattr(args, name) for name in ("threads", "prompt_tokens", "new_tokens", "clock")}
        print(json.dumps(asdict(take_turn(args.turn, args.bundle, **options))))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        path = args.bundle
        if path is None:
            path = Path(scratch) / f"{args.model}-{args.format}"
            export(args.model, path, format=args.format, check=False, verify=False)
        result = compare(args, path)
    print(markdown(result))
    if result["first_different_token"] is not None:
        print(f"\nThe greedy texts part at token {result['first_different_token']}.")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
