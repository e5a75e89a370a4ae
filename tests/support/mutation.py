"""``make mutation``: how many small changes of the code that the project's promises rest on do its tests notice?

Everything is imported once; of every mutant a forked process changes the code in place and runs the tests that execute
the changed lines, cheapest first, until one fails. A subject has thousands of mutants, so a random sample of each is
tried, drawn with ``--seed``; ``--sample 0`` tries all. A mutant that takes many times the processor time of its tests
counts as noticed; so does one that ends the process. A survivor, printed as a difference, is a missing test, code that
nobody needs, or a mutant that changes nothing.
"""

from __future__ import annotations

import argparse
import functools
import gc
import hashlib
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import coverage
import hypothesis
import pytest
from _pytest.runner import runtestprotocol
from mutants import Mutant, mutants, put_in

from edgedistill.atomic_file import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Reached = dict[Path, dict[int, set[int]]]

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "edgedistill"
KEPT = ROOT / "build" / "mutation"
LEAST, TIMES, WALL = 2.0, 5.0, 300
"""Processor seconds of a mutant: at least, and as a multiple of its tests'. Seconds that it may sleep."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Files whose mutants are tried, and the pytest arguments that have to notice."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


def _tests(folder: str, names: str) -> tuple[str, ...]:
    return tuple(f"tests/{folder}/test_{name}.py" for name in names.split())


SUBJECTS = {
    "staging": Subject(
        ("bundle/staging.py", "bundle/own_directory.py"), _tests("bundle", "staging own_directory amend appearing")
    ),
    "answers": Subject(("answers/*.py",), ("tests/answers",)),
    "stats": Subject(("verify/stats/*.py",), ("tests/verify/stats", "tests/verify/gate/test_sequential.py")),
    "gate": Subject(("verify/gate/*.py",), _tests("verify/gate", "gate gate_edges gate_results sequential reach")),
}


@dataclass(slots=True, eq=False)
class Run:
    """A pytest plugin that tries mutants of a subject in the place of running its tests."""

    subject: Subject
    sample: int
    seed: int
    processes: int
    known: int = 0
    tried: int = 0
    late: int = 0
    survivors: list[str] = field(default_factory=list)
    error: str = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """The same examples in every process, and none made smaller: that a test fails is all that counts."""
        phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
        hypothesis.settings.register_profile("mutation", derandomize=True, deadline=None, phases=phases)
        hypothesis.settings.load_profile("mutation")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Try the mutants."""
        paths = sorted(path for pattern in self.subject.files for path in SOURCE.glob(pattern))
        sources = {path: path.read_text(encoding="utf-8") for path in paths}
        names = {path: ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in paths}
        modules = {path: importlib.import_module(name.removesuffix(".__init__")) for path, name in names.items()}
        gc.freeze()
        found = [(path, mutant) for path in paths for mutant in mutants(sources[path])]
        self.known = len(found)
        if self.sample:
            found = random.Random(self.seed).sample(found, min(self.sample, len(found)))
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            costs, reached = self._measure(session.items, paths, place)
            if self.error:
                return True

            def tried(path: Path, mutant: Mutant, tests: list[int]) -> bool:
                put_in(mutant, sources[path], modules[path])
                return all(_passes(session.items[test]) for test in tests)

            jobs = []
            for number, (path, mutant) in enumerate(found):
                tests = sorted(_chosen(mutant, reached[path], range(len(costs))), key=costs.__getitem__)
                limit = LEAST + TIMES * sum(costs[test] for test in tests)
                jobs.append((number, functools.partial(tried, path, mutant, tests), limit))
            for number, status, _ in _forked(jobs, self.processes, place):
                self.tried += 1
                print(f"{self.tried} of {len(found)} tried", flush=True, end="\r")
                self.late += os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGALRM)
                if status == 0:
                    path, mutant = found[number]
                    where = f"{path.relative_to(SOURCE)}:{mutant.lines[0]} in {mutant.function or 'the module'}"
                    self.survivors.append(f"{where}\n{mutant.difference(sources[path])}")
                    print(f"survived: {self.survivors[-1]}", flush=True)
        return True

    def _measure(self, items: list[pytest.Item], paths: list[Path], place: Path) -> tuple[list[float], Reached]:
        """Processor seconds of every test, and by file and line the tests that execute it; kept for the next sample."""
        KEPT.mkdir(parents=True, exist_ok=True)
        sources = b"".join(path.read_bytes() for path in paths)
        texts = [item.nodeid.encode() + item.path.read_bytes() + sources for item in items]
        notes = [KEPT / f"{hashlib.sha256(text).hexdigest()}.json" for text in texts]

        def measured(number: int) -> bool:
            warnings.simplefilter("ignore")  # a test that reaches none of the files
            watch = coverage.Coverage(data_file=None, config_file=False, include=[str(path) for path in paths])
            watch.start()
            passed = _passes(items[number])
            watch.stop()
            lines = {name: watch.get_data().lines(name) for name in watch.get_data().measured_files()}
            write_whole(notes[number], json.dumps([time.process_time(), lines]))
            return passed

        jobs = [(n, functools.partial(measured, n), 600.0) for n, note in enumerate(notes) if not note.exists()]
        for number, status, _ in _forked(jobs, self.processes, place):
            if status:
                self.error = f"{items[number].nodeid} fails without any change"
                notes[number].unlink(missing_ok=True)
                return [], {}
        costs = []
        reached: Reached = {path: {} for path in paths}
        for number, note in enumerate(notes):
            seconds, files = json.loads(note.read_bytes())
            costs.append(seconds)
            for name, lines in files.items():
                for line in lines:
                    reached[Path(name)].setdefault(line, set()).add(number)
        print(f"{len(items)} tests take {sum(costs):.0f} processor seconds", flush=True)
        return costs, reached


def _chosen(mutant: Mutant, reached: dict[int, set[int]], every: range) -> set[int] | range:
    """Tests that execute the mutant's lines; of what an import runs, which other files may use, all."""
    if mutant.function is None:
        return every
    for first, last in (mutant.lines, mutant.statement):
        if found := set().union(*(reached.get(line, ()) for line in range(first, last + 1))):
            return found
    return set()


def _passes(item: pytest.Item) -> bool:
    reports = runtestprotocol(item, log=False, nextitem=None)
    return not any(report.failed for report in reports)


def _forked(
    jobs: Iterable[tuple[int, Callable[[], bool], float]], processes: int, place: Path
) -> Iterator[tuple[int, int, float]]:
    """Run jobs (number, what, processor seconds) in forked processes: number, exit status (0: true), seconds used."""
    running: dict[int, int] = {}

    def ended() -> tuple[int, int, float]:
        pid, status, used = os.wait4(-1, 0)
        shutil.rmtree(place / str(pid), ignore_errors=True)
        return running.pop(pid), status, used.ru_utime + used.ru_stime

    for number, action, limit in jobs:
        if len(running) >= processes:
            yield ended()
        pid = os.fork()
        if pid == 0:
            _child(action, limit, place)
        running[pid] = number
    while running:
        yield ended()


def _child(action: Callable[[], bool], limit: float, place: Path) -> None:
    code = 1
    try:
        os.environ["PYTEST_DEBUG_TEMPROOT"] = str(place / str(os.getpid()))
        (place / str(os.getpid())).mkdir()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit) + 1, int(limit) + 2))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(WALL)
        code = 0 if action() else 1
    finally:
        os._exit(code)


def main() -> None:
    """Parse, run, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--subject", action="append", choices=sorted(SUBJECTS), help="one of them; default: all")
    parser.add_argument("--sample", type=int, default=150, metavar="N", help="mutants of each (150); 0: all")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another sample")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), metavar="N", help="at the same time")
    args = parser.parse_args()
    runs = {name: Run(SUBJECTS[name], args.sample, args.seed, args.processes) for name in args.subject or SUBJECTS}
    for name, run in runs.items():
        tests = [str(ROOT / test) for test in run.subject.tests]
        options = ["-n0", "-m", "not slow", "-qq", "--no-header", "--no-summary", "--capture=no", f"--rootdir={ROOT}"]
        pytest.main([*options, *tests], plugins=[run])
        if run.error or not run.tried:
            sys.exit(f"error: {run.error or f'no mutant of {name} was tried'}")
    print(f"{'subject':<10} {'mutants':>8} {'tried':>6} {'noticed':>8} {'in time':>8} {'survived':>9} {'score':>6}")
    for name, run in runs.items():
        lived = len(run.survivors)
        noticed = run.tried - lived
        in_time, score = noticed - run.late, noticed / run.tried
        print(f"{name:<10} {run.known:>8} {run.tried:>6} {noticed:>8} {in_time:>8} {lived:>9} {score:>6.1%}")


if __name__ == "__main__":
    main()
