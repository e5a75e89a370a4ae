"""Measures the time that a mask adds to a token, by size of the vocabulary: without a mask, with a form, with tools.

    python bench/masks.py [--sizes 4096 32768 151936] [--tokens 400] [--rounds 5] [--json FILE] [--quick]

The vocabularies are synthetic (bytes, and random words of 2 to 10 letters), since the cost of a mask depends on the
vocabulary and not on a model. The logits are noise, so that sampling under a mask visits all of the form. A round is
one reply of ``--tokens`` tokens of each kind, in turn, in one process; a time is that of choosing and recording one
token, as the decode loop does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from edgedistill.catalog.reasoning import DEFAULT_GRAMMAR
from edgedistill.catalog.tool_formats import HERMES
from edgedistill.runtime.sampling import NoiseKey, Sampler
from edgedistill.runtime.settings import GenerationSettings
from edgedistill.runtime.structured.constraint import constraint_of
from edgedistill.runtime.structured.masks import MaskMaker
from edgedistill.runtime.structured.opened_call import OpenedCallMask
from edgedistill.runtime.tools.types import Tool

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 40}},
        "size": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}}},
        "kind": {"enum": ["red", "green", "blue"]},
    },
    "required": ["name", "tags", "size", "kind"],
    "additionalProperties": False,
}
TOOL = Tool("store", "Store a thing.", SCHEMA)
KINDS = ("none", "schema", "regex", "tools, watched", "tools, in a call")


@dataclass(frozen=True, slots=True)
class Measured:
    """Microseconds a token of one kind and vocabulary: the median of each round. ``prepare_ms``: making the mask."""

    size: int
    kind: str
    rounds: tuple[float, ...]
    p95: float
    prepare_ms: float


def tokenizer_of(size: int) -> Tokenizer:
    """A byte-level vocabulary of ``size`` tokens; the same one each time."""
    rng = np.random.default_rng(size)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    letters, weights = np.array(list("etaoinshrdlucmfwypvbgkqjxz")), 1 / np.arange(1, 27)
    while len(vocabulary) < size - 3:
        for length in rng.integers(2, 11, size=1000):
            word = "".join(rng.choice(letters, size=length, p=weights / weights.sum()))
            piece = ("Ġ" if rng.random() < 0.5 else "") + (word.capitalize() if rng.random() < 0.2 else word)
            if len(vocabulary) < size - 3:
                vocabulary.setdefault(piece, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(one, special=True) for one in ("<|end|>", HERMES.open, HERMES.close)])
    return tokenizer


def measure(size: int, tokens: int, rounds: int) -> list[Measured]:
    """All kinds with one vocabulary."""
    tokenizer = tokenizer_of(size)
    end = tokenizer.token_to_id("<|end|>")
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((8, size)).astype(np.float32)
    noise[:, end] = -10.0
    maker = MaskMaker(tokenizer, vocab_size=size, eos=[end])
    _ = maker.tokens

    def watching() -> OpenedCallMask:
        return OpenedCallMask(maker, tokenizer, DEFAULT_GRAMMAR, [HERMES], [TOOL], opened=None)

    def opened() -> OpenedCallMask:
        mask = watching()
        mask.observe(tokenizer.token_to_id(HERMES.open))
        return mask

    makers: dict[str, Callable[[], Any]] = {
        "none": lambda: None,
        "schema": lambda: maker.mask(constraint_of(json_schema=SCHEMA)),
        "regex": lambda: maker.mask(constraint_of(regex="([a-z]+ ){200}[0-9]{4}")),
        "tools, watched": watching,
        "tools, in a call": opened,
    }
    laps: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    prepared: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS:
            times: list[float] = []
            while len(times) < tokens:
                begun = time.perf_counter()
                mask = makers[kind]()
                prepared[kind].append(time.perf_counter() - begun)
                sampler = Sampler(GenerationSettings(temperature=1.0), NoiseKey.of(number), vocab_size=size, mask=mask)
                for place in range(tokens - len(times)):
                    begun = time.perf_counter()
                    sampler.observe([sampler.choose(noise[place % len(noise)], place)])
                    times.append(time.perf_counter() - begun)
                    left = kind == "tools, in a call" and mask.apply(noise[0]) is noise[0]
                    if sampler.finished or left:
                        break
            laps[kind].append(times)
    return [
        Measured(
            size, kind, tuple(1e6 * median(times) for times in laps[kind]),
            1e6 * float(np.percentile(np.concatenate(laps[kind]), 95)), 1e3 * median(prepared[kind]),
        )
        for kind in KINDS
    ]  # fmt: skip


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4096, 32768, 151936, 262144])
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--quick", action="store_true", help="a small vocabulary, one round, to try it")
    args = parser.parse_args()
    sizes, tokens, rounds = ([2048], 40, 1) if args.quick else (args.sizes, args.tokens, args.rounds)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores; {rounds} rounds of {tokens} tokens\n")
    print("| vocabulary | mask | us a token, median of rounds (min - max) | 95 % of tokens below | making it, ms |")
    print("|---:|---|---|---:|---:|")
    found: list[Measured] = []
    for size in sizes:
        for one in measure(size, tokens, rounds):
            found.append(one)
            spread = f"{median(one.rounds):.0f} ({min(one.rounds):.0f} - {max(one.rounds):.0f})"
            print(f"| {one.size:,} | {one.kind} | {spread} | {one.p95:.0f} | {one.prepare_ms:.1f} |", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(one) for one in found], indent=2))


if __name__ == "__main__":
    main()
