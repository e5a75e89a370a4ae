"""Mutation fuzzing of every parser: ``python tests/fuzz/fuzz.py --executions 20000``; see ``make fuzz``.

Every run is repeatable: the seed of a target's mutations is its name and ``--seed``. An input that ends in anything but
a typed error is written to ``--failures``, to be fixed and then kept in ``corpus/``.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

from mutate import mutated
from targets import TARGETS

from edgedistill.errors import EdgedistillError

if TYPE_CHECKING:
    from collections.abc import Iterator

CORPUS = Path(__file__).parent / "corpus"
_MEMORY = 4 << 30


def corpus(target: str) -> list[bytes]:
    """The documents that mutations of ``target`` start from, and those that once failed."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def inputs(target: str, executions: int, seed: int) -> Iterator[bytes]:
    """The corpus as it is, then ``executions`` mutations of it."""
    seeds, random = corpus(target), Random(f"{target} {seed}")
    yield from seeds
    for _ in range(executions):
        yield mutated(random.choice(seeds), random)


def execute(target: str, data: bytes, folder: Path) -> str:
    """``accepted``, ``refused``, or the exception that should not have been raised."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        TARGETS[target](data, folder)
    except EdgedistillError as error:
        str(error).encode("utf-8", "backslashreplace")
        return "refused"
    except Exception as error:
        at = error.__traceback__
        while at is not None and at.tb_next is not None:
            at = at.tb_next
        where = f"{Path(at.tb_frame.f_code.co_filename).name}:{at.tb_lineno}" if at else "?"
        return f"{type(error).__name__} at {where}: {str(error)[:100]}"
    return "accepted"


def main() -> int:
    """Fuzz, print a line per target; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--executions", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", choices=TARGETS, action="append")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"))
    args = parser.parse_args()
    _limit_memory()
    found = 0
    print(f"{'parser':18} {'executions':>10} {'refused':>8} {'accepted':>8} {'failed':>6} {'slowest s':>9}")
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        for target in args.target or TARGETS:
            counts, slowest, kinds = {"accepted": 0, "refused": 0}, 0.0, set()
            for number, data in enumerate(inputs(target, args.executions, args.seed)):
                started = time.perf_counter()
                outcome = execute(target, data, Path(folder) / "files")
                slowest = max(slowest, time.perf_counter() - started)
                if outcome in counts:
                    counts[outcome] += 1
                    continue
                kind = outcome.split(": ")[0]
                if kind not in kinds:
                    kinds.add(kind)
                    args.failures.mkdir(exist_ok=True)
                    (args.failures / f"{target}-{number}").write_bytes(data)
                    print(f"  {target}-{number}: {outcome}", flush=True)
                found += 1
            total = number + 1
            failed = total - sum(counts.values())
            print(
                f"{target:18} {total:10} {counts['refused']:8} {counts['accepted']:8} {failed:6} {slowest:9.2f}",
                flush=True,
            )
    return int(found > 0)


def _limit_memory() -> None:
    """A parser that believes a size in a file gets a MemoryError, where the system has such a limit."""
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


if __name__ == "__main__":
    sys.exit(main())
