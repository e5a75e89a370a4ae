"""Checks the gate by simulation: its error rate when the true change is exactly at the margin, and its power.

    make bench-gate
    make bench-gate ARGS=--quick                    # 200 repetitions, fewer sizes
    make bench-gate ARGS="--markdown gate.md"       # the tables in a file

Every endpoint and every test (these prompts, prompts like these, sequential) runs on every population at every size,
with the margin set to the true value. The gate then has to pass (and to fail) with probability at most alpha. The
largest rate over all sizes is printed beside the bound that a rate of alpha would stay below in as many repetitions.
See ``gate_populations``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from gate_populations import ENDPOINTS, POPULATIONS, TESTS, power, rates

from edgedistill.verify.stats.special_functions import beta_quantile

ALPHA = 0.05
PROMPTS, SAMPLES = (20, 60, 150, 300), (8, 16, 64)

Cell = tuple[str, int, int, int]


def calibrate(cell: Cell) -> tuple[Cell, list[tuple[str, str, float]], float]:
    """All rates of a population at a size, and the seconds they took."""
    name, prompts, samples, repetitions = cell
    started = time.perf_counter()
    seed = prompts * 1000 + samples + 7919 * list(POPULATIONS).index(name)
    # In parts, so that tables of pairs stay small.
    part = max(1, min(repetitions, 400_000_000 // (prompts * POPULATIONS[name][0].joint.size * 64)))
    sums: dict[tuple[str, str], float] = defaultdict(float)
    done = 0
    while done < repetitions:
        count = min(part, repetitions - done)
        for test, endpoint, rate in rates(name, prompts, samples, count, seed + done, ALPHA):
            sums[test, endpoint] += rate * count
        done += count
    found = [(test, endpoint, total / repetitions) for (test, endpoint), total in sums.items()]
    return cell, found, time.perf_counter() - started


def strength(size: tuple[int, int, int]) -> tuple[int, int, dict[str, float]]:
    """Power at a size."""
    prompts, samples, repetitions = size
    return prompts, samples, power(prompts, samples, repetitions, seed=prompts + samples)


def largest_rate(repetitions: int) -> float:
    """The rate that a true rate of alpha exceeds in one of ten thousand benchmarks."""
    hits = ALPHA * repetitions
    return beta_quantile(1 - 1e-4, hits + 1, repetitions - hits)


def main() -> int:
    """Simulate, print; exit 1 if a rate is too high."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="200 repetitions, two sizes")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to this file")
    args = parser.parse_args()
    repetitions = 200 if args.quick else args.repetitions
    sizes = [(60, 16), (150, 8)] if args.quick else [(p, n) for p in PROMPTS for n in SAMPLES]
    started = time.perf_counter()
    worst: dict[tuple[str, str, str], float] = defaultdict(float)
    seconds: dict[str, float] = defaultdict(float)
    with ProcessPoolExecutor(args.processes) as pool:
        cells = [(name, p, n, repetitions) for p, n in sorted(sizes, reverse=True) for name in POPULATIONS]
        for (name, *_), found, took in pool.map(calibrate, cells):
            seconds[name] += took
            for test, endpoint, rate in found:
                worst[name, test, endpoint] = max(worst[name, test, endpoint], rate)
        strengths = list(pool.map(strength, [(p, n, repetitions) for p, n in sizes]))
    bound = largest_rate(repetitions)
    broken = {key: rate for key, rate in worst.items() if rate > bound}
    lines = [
        f"{repetitions} repetitions of each of {len(sizes)} sizes: prompts "
        f"{sorted({p for p, _ in sizes})}, samples {sorted({n for _, n in sizes})}. "
        f"Largest rate of a wrong pass or fail over all sizes, in per cent, the margin being the truth; a rate of "
        f"{100 * ALPHA:g} % would stay below {100 * bound:.1f} % in so many repetitions. Each cell: about these "
        "prompts / about prompts like these / the same, looking after every prompt. A dash: not affected.",
        "",
        f"| population | {' | '.join(ENDPOINTS)} | seconds |",
        f"|---|{'---|' * (len(ENDPOINTS) + 1)}",
    ]
    for name in POPULATIONS:
        found_rates = [[worst.get((name, test, endpoint)) for test in TESTS] for endpoint in ENDPOINTS]
        shown = [" / ".join("-" if rate is None else f"{100 * rate:.1f}" for rate in cell) for cell in found_rates]
        texts = " | ".join("-" if not any(char.isdigit() for char in text) else text for text in shown)
        lines.append(f"| {name} | {texts} | {seconds[name]:.0f} |")
    lines += [
        "",
        "P(pass), all endpoints together at the default margins, of a model that did not change (5 % of paired samples "
        "part):",
        "",
        f"| prompts | samples | {' | '.join(TESTS)} |",
        f"|---|---|{'---|' * len(TESTS)}",
        *(f"| {p} | {n} | {' | '.join(f'{found[test]:.2f}' for test in TESTS)} |" for p, n, found in strengths),
        "",
        f"In all {time.perf_counter() - started:.0f} s on {args.processes} processes.",
    ]
    print("\n".join(lines))
    if args.markdown:
        args.markdown.write_text("\n".join(lines) + "\n")
    for (name, test, endpoint), rate in broken.items():
        print(f"{name}, {test}, {endpoint}: {rate:.1%} is more than {bound:.1%}.", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
