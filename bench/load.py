"""Measures the time from the start of the process to a bundle's first token, and its memory.

    python bench/load.py [--bundle DIR ...] [--large] [--rounds 5] [--against SRC ...] [--packed]

Without --bundle: SmolLM2-135M and a random checkpoint of Qwen3-0.6B's shape, exported with default options; --large
adds Qwen3-4B's shape (10 GB of disk). Checkpoints and bundles are kept under --work. Every measurement is a process of
its own that asks for one token; files are in the page cache by then. Bundles, and with --against other versions of this
project (their src directories) or with --packed a cache of packed weights (EDGEDISTILL_PACKED_CACHE), are measured in
turn, in alternating order. Processor time is printed beside wall time, because a busy machine only increases the
latter.

Memory is measured in further processes, in which a thread reads it every two milliseconds: the private memory of the
process (Linux: RssAnon) above that after the imports, as a multiple of the weights file. Pages of the mapped file are
not private: they belong to the page cache, and the system drops them if memory is short.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).resolve().parent
OURS = HERE.parent / "src"
PHASES = ("start", "imports", "check", "model", "token")
TITLES = {
    "start": "Python starts",
    "imports": "imports",
    "check": "manifest and sizes",
    "model": "session, tokenizer",
    "token": "first token",
}
RANDOM_SHAPES = ("qwen3-0.6b",)
LARGE_SHAPES = ("qwen3-4b",)
_SAMPLE_S = 0.002


def child(path: Path, begun: float, memory: bool) -> dict[str, Any]:
    """Open the bundle and ask for one token; seconds of each phase, or bytes."""
    marks = [begun, time.time()]
    from edgedistill.bundle.bundle import WEIGHTS, Bundle
    from edgedistill.runtime.model import Model

    marks.append(time.time())
    watch = _Watch() if memory else None
    bundle = Bundle.open(path)
    marks.append(time.time())
    model = Model(bundle)
    marks.append(time.time())
    opened = watch.private() if watch else 0
    model.generate("What is 17 + 25?", temperature=0.0, max_new_tokens=1)
    marks.append(time.time())
    if watch:
        weights = bundle.file(WEIGHTS).stat().st_size
        return {"weights": weights, "opened": opened, "answered": watch.private(), "peak": watch.stop()}
    phases = {name: b - a for name, (a, b) in zip(PHASES, pairwise(marks), strict=True)}
    used = os.times()
    return {**phases, "total": marks[-1] - begun, "processor": used.user + used.system}


class _Watch:
    """Private bytes of this process over those at the beginning."""

    def __init__(self) -> None:
        self._base = self._peak = _anonymous()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._ended.wait(_SAMPLE_S):
            self._peak = max(self._peak, _anonymous())

    def private(self) -> int:
        return _anonymous() - self._base

    def stop(self) -> int:
        self._ended.set()
        self._thread.join()
        return self._peak - self._base


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise SystemExit("memory is measured on Linux only: leave it out with --no-memory")


def turn(path: Path, source: Path, packed: Path | None, *, memory: bool) -> dict[str, Any]:
    """One process's figures; ``packed``: where to keep a cache of packed weights."""
    environment = {**os.environ, "PYTHONPATH": str(source), "EDGEDISTILL_PACKED_CACHE": "0"}
    if packed is not None:
        environment |= {"EDGEDISTILL_CACHE": str(packed.resolve()), "EDGEDISTILL_PACKED_CACHE": "100GB"}
    # Byte code is what an installation has; a checkout that must not be written to has it elsewhere.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, __file__, "--child", str(path), *(["--child-memory"] if memory else [])]
    command += ["--begun", repr(time.time())]
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def make_bundles(work: Path, shapes: tuple[str, ...]) -> list[Path]:
    """SmolLM2-135M and random checkpoints of ``shapes``, exported with default options, each made once."""
    made = []
    for name in ("smollm2-135m", *shapes):
        source: str | Path = name if name not in shapes else work / f"{name}-checkpoint"
        if isinstance(source, Path) and not source.exists():
            command = [sys.executable, str(HERE / "make_checkpoint.py"), "--shape", name, "--out", str(source)]
            subprocess.run(command, check=True, stdout=sys.stderr)
        path = work / name
        if not (path / "manifest.json").is_file():
            command = [sys.executable, "-m", "edgedistill", "export", str(source), "-o", str(path), "--no-verify"]
            subprocess.run(command, check=True, stdout=sys.stderr)
        made.append(path)
    return made


def measure(args: argparse.Namespace, paths: list[Path]) -> list[dict[str, Any]]:
    """Figures of every bundle under every version, ``rounds`` each."""
    versions: list[tuple[Path, Path | None, str]] = [(OURS, None, "")]
    if args.packed:
        versions.append((OURS, args.work / "cache", "packed"))
    versions += [(source, None, _version(source)) for source in args.against]
    cases = [(path, source, packed) for path in paths for source, packed, _ in versions]
    rows: list[dict[str, Any]] = [
        {"bundle": path.name, "version": name, "rounds": [], "memory": []} for path in paths for _, _, name in versions
    ]
    for case in cases:
        turn(*case, memory=False)  # the first one writes byte code and fills the page cache
    for number in range(args.rounds):
        for index in list(range(len(cases)))[:: -1 if number % 2 else 1]:
            rows[index]["rounds"].append(turn(*cases[index], memory=False))
            if args.memory:
                rows[index]["memory"].append(turn(*cases[index], memory=True))
            sys.stderr.write(f"round {number + 1} of {args.rounds}: {cases[index][0].name}\n")
    return rows


def _version(source: Path) -> str:
    found = subprocess.run(
        ["git", "-C", str(source), "rev-parse", "--short", "HEAD"], check=False, capture_output=True, text=True
    )
    return found.stdout.strip() or str(source)


def markdown(rows: list[dict[str, Any]]) -> str:
    """Machine, date and a table: a column for each bundle and version, medians (least to most)."""
    heads = [", ".join(part for part in (row["bundle"], row["version"]) if part) for row in rows]
    lines = [machine(), "", "| median (min to max) | " + " | ".join(heads) + " |", "|---|" + "---|" * len(rows)]

    def line(title: str, values: list[list[float]], digits: int) -> None:
        cells = [f"{median(v):.{digits}f} ({min(v):.{digits}f} to {max(v):.{digits}f})" for v in values]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")

    line("first token, s from process start", [[r["total"] for r in row["rounds"]] for row in rows], 2)
    for name in PHASES:
        line(f"- {TITLES[name]}", [[r[name] for r in row["rounds"]] for row in rows], 2)
    line("processor time, s", [[r["processor"] for r in row["rounds"]] for row in rows], 2)
    if all(row["memory"] for row in rows):
        sizes = [f"{row['memory'][0]['weights'] / 1e6:.1f}" for row in rows]
        lines.append("| weights file, MB | " + " | ".join(sizes) + " |")
        titles = {"opened": "private / weights, opened", "answered": "- after a token", "peak": "- at the peak"}
        for key, title in titles.items():
            line(title, [[m[key] / m["weights"] for m in row["memory"]] for row in rows], 2)
    return "\n".join(lines)


def machine() -> str:
    """Processor, cores, system and date in a line."""
    from edgedistill.runtime.session import physical_cores
    from edgedistill.system.processor import read_processor

    found = read_processor(Path("/"), platform.system(), platform.machine().lower())
    load = f", load {os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{found.name} ({', '.join(sorted(found.isa or ()))}), {physical_cores()} threads{load}, {platform.system()} "
        f"{platform.release()}, {datetime.now(tz=UTC):%-d %B %Y}"
    )


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, nargs="+", metavar="DIR", help="measure these instead of exporting")
    parser.add_argument("--large", action="store_true", help="a random checkpoint of Qwen3-4B's shape, too")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, nargs="+", default=[], metavar="SRC", help="src of other versions")
    parser.add_argument("--packed", action="store_true", help="with a cache of packed weights, too")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="times only")
    parser.add_argument("--work", type=Path, default=Path("bench-results/load"), metavar="DIR")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to this file")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--child-memory", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--begun", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        sys.stdout.write(json.dumps(child(args.child, args.begun, args.child_memory)) + "\n")
        sys.stdout.flush()
        os._exit(0)  # how long a process takes to end is no part of this
    args.work.mkdir(parents=True, exist_ok=True)
    paths = args.bundle or make_bundles(args.work, RANDOM_SHAPES + (LARGE_SHAPES if args.large else ()))
    rows = measure(args, [path.resolve() for path in paths])
    sys.stdout.write(markdown(rows) + "\n")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
