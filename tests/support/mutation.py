"""``make mutation``: how many small changes of the code that the project's promises rest on do its tests notice?

mutmut changes one operator, constant or call at a time and runs the tests that reach it. A subject has thousands of
such mutants, so a random sample of each is tried, drawn with ``--seed``; ``--sample 0`` tries all. Results stay in
``build/mutation``: ``--show`` prints the survivors as differences. The score is the share of mutants that a test caught
or that ran out of time. A survivor is a missing test, or a mutant that changes nothing. Messages of errors and what
another platform runs are not mutated: no test should repeat the one, none here can notice the other.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("src", "tui", "profiles", "tests", "docs", "examples", "bench", "README.md", "Makefile")
UNCHANGED = (r"""^\s*f?["'].*["'][,)]*$""", r"hint=", r"Error\(", r"renamex_np|msvcrt")
"""Lines that are not mutated (regular expressions): texts, errors, calls of macOS and Windows."""
MUTMUT = (sys.executable, "-m", "mutmut")
CONFTEST = """\
import sys

sys.setrecursionlimit(10_000)


def pytest_make_parametrize_id(val, argname):
    return argname if isinstance(val, str) else None
"""
"""The copy's conftest.py: mutmut puts two calls of its own around every call, which deepens recursion, and names
tests on pytest's command line, which takes no id that holds any text."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Files whose mutants are tried, and the pytest arguments that have to notice."""

    files: tuple[str, ...]
    tests: tuple[str, ...]


SUBJECTS = {
    "staging": Subject(
        ("bundle/staging.py", "bundle/own_directory.py"),
        ("tests/bundle/test_staging.py", "tests/bundle/test_own_directory.py"),
    ),
    "answers": Subject(("answers/*.py",), ("tests/answers",)),
    "stats": Subject(("verify/stats/*.py",), ("tests/verify/stats", "tests/verify/gate/test_sequential.py")),
    "gate": Subject(("verify/gate/*.py",), ("tests/verify/gate/test_gate.py", "tests/verify/gate/test_sequential.py")),
}


def prepare(place: Path, subject: Subject) -> None:
    """A copy of the tree at ``place`` with a configuration of its own."""
    shutil.rmtree(place / "mutants", ignore_errors=True)  # it remembers tests by ids, which may have changed
    place.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source, target = ROOT / name, place / name
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, target)
    config = {
        "source_paths": ["src"],
        "only_mutate": [f"src/edgedistill/{name}" for name in subject.files],
        "do_not_mutate_patterns": list(UNCHANGED),
        "also_copy": ["conftest.py", *(name for name in COPIED if name not in ("src", "tests"))],
        "pytest_add_cli_args": ["-n0", "-m", "not slow"],
        "pytest_add_cli_args_test_selection": list(subject.tests),
    }
    (place / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    lines = [f"{name} = {json.dumps(value)}" for name, value in config.items()]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (place / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines, ""]), encoding="utf-8")


def mutmut(place: Path, *arguments: str, quiet: bool = False) -> subprocess.CompletedProcess[str]:
    """Run mutmut in ``place``, with one thread a process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    pipe = subprocess.PIPE if quiet else None
    return subprocess.run(
        [*MUTMUT, *arguments], cwd=place, env=environment, stdout=pipe, stderr=pipe, text=True, check=False
    )


def outcomes(place: Path) -> dict[str, str]:
    """What became of every mutant so far, by name."""
    shown = mutmut(place, "results", "--all", "true", quiet=True).stdout or ""
    pairs = (line.strip().rpartition(": ") for line in shown.splitlines() if ": " in line)
    return {name: outcome for name, _, outcome in pairs if "__mutmut_" in name}


def difference(place: Path, mutant: str) -> str:
    """What a mutant changes, from the file in which mutmut keeps all variants of a function side by side."""
    module, _, variant = mutant.rpartition(".")
    source = (place / "mutants" / "src" / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8")
    original = variant.rpartition("__mutmut_")[0] + "__mutmut_orig"
    bodies = {
        node.name: ast.unparse(node).splitlines()[1:]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name in (original, variant)
    }
    lines = difflib.unified_diff(bodies.get(original, []), bodies.get(variant, []), lineterm="", n=0)
    return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


def main() -> None:
    """Parse, run, print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--subject", action="append", choices=sorted(SUBJECTS), help="one of them; default: all")
    parser.add_argument("--sample", type=int, default=150, metavar="N", help="mutants of each (150); 0: all")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="another sample")
    parser.add_argument("--children", type=int, default=os.cpu_count(), metavar="N", help="processes")
    parser.add_argument("--show", action="store_true", help="print what survived as differences")
    args = parser.parse_args()
    table = []
    for name in args.subject or SUBJECTS:
        place = ROOT / "build" / "mutation" / name
        prepare(place, SUBJECTS[name])
        # A name that is none makes the mutants and the statistics of the tests without trying any.
        mutmut(place, "run", "--max-children", str(args.children), "none", quiet=True)
        known = sorted(outcomes(place))
        if not known:
            sys.exit(f"error: mutmut made no mutants of {name}; see: cd {place} && mutmut run")
        chosen = known if not args.sample else random.Random(args.seed).sample(known, min(args.sample, len(known)))
        mutmut(place, "run", "--max-children", str(args.children), *chosen)
        found = {mutant: outcome for mutant, outcome in outcomes(place).items() if mutant in set(chosen)}
        tried = [outcome for outcome in found.values() if outcome in ("killed", "timeout", "survived", "segfault")]
        if not tried:
            sys.exit(f"error: no mutant of {name} was tried; the tests fail without one: cd {place} && mutmut run")
        lived = sorted(mutant for mutant, outcome in found.items() if outcome in ("survived", "no tests"))
        caught = len(tried) - tried.count("survived")
        table.append((name, len(known), len(chosen), caught, len(lived), caught / max(1, caught + len(lived))))
        for mutant in lived:
            print(f"survived: {mutant}")
            if args.show:
                print(difference(place, mutant))
    print(f"{'subject':<10} {'mutants':>8} {'tried':>6} {'caught':>7} {'survived':>9} {'score':>6}")
    for name, mutants, tried_, caught, survived, score in table:
        print(f"{name:<10} {mutants:>8} {tried_:>6} {caught:>7} {survived:>9} {score:>6.1%}")


if __name__ == "__main__":
    main()
