"""The base: small, and enough to run a bundle; the exporter is an extra that says so where it is missing.

The rule of the size: the bytes that the wheels of the base's requirements, and of theirs, put on disk as their RECORD
lists them, without byte code (pip compiles it afterwards: half as much again), of the versions installed here.
ONNX Runtime and NumPy are 133 MB of it on Linux x86-64; tokenizers and what it brings along 30 MB.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.metadata import distribution, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgedistill.extras import PACKAGES

ROOT = Path(__file__).parents[1]
BUDGET = 190_000_000
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _base() -> set[str]:
    """Canonical names of all distributions that the base brings along, by what is installed."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in PROJECT["dependencies"]]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found:
            continue
        found.add(name)
        for text in requires(name) or ():
            one = Requirement(text)
            if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in (*wanted.extras, "")):
                waiting.append(one)
    return found


def _size(name: str) -> int:
    return sum(file.size or 0 for file in distribution(name).files or () if file.suffix != ".pyc")


def test_the_base_stays_within_its_budget() -> None:
    sizes = {name: _size(name) for name in _base()}
    assert min(sizes["onnxruntime"], sizes["numpy"]) > 5_000_000, "a RECORD without sizes measures nothing"
    largest = sorted(sizes.items(), key=lambda pair: -pair[1])[:8]
    assert sum(sizes.values()) <= BUDGET, f"{sum(sizes.values()) / 1e6:.0f} MB; the largest: {largest}"


def test_the_base_has_nothing_of_the_exporter() -> None:
    assert not _base() & {"onnx", "onnx-ir", "sympy", "mpmath", "ml-dtypes", "gguf", "safetensors", "torch", "scipy"}


def test_hints_name_the_packages_of_each_extra() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(PACKAGES) == set(extras) - {"dev", "docs", "bench"}
    for name, packages in PACKAGES.items():
        assert list(packages) == [text for text in extras[name] if not text.startswith("edgedistill[")], name


def _on_the_base(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in a process that can import the base's modules alone, as an installation without extras."""
    base = _base()
    hidden = sorted(
        module
        for module, names in packages_distributions().items()
        if not any(canonicalize_name(name) in base for name in names) and not module.startswith("edgedistill")
    )
    script = (
        "import importlib.util, json, sys\n"
        "hidden = set(json.loads(sys.argv[1]))\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in hidden: raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name in hidden else find(name, package)\n"
        "from edgedistill.cli import main\n"
        "sys.exit(main(sys.argv[2:]))\n"
    )
    assert {"onnx", "onnx_ir", "gguf", "torch", "safetensors"} <= set(hidden)
    return subprocess.run(
        [sys.executable, "-c", script, json.dumps(hidden), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_a_bundle_runs_on_the_base(tiny_bundle_dir: Path) -> None:
    done = _on_the_base("run", str(tiny_bundle_dir), "What is 17 + 25?", "--max-new-tokens", "3", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["stats"]["new_tokens"] > 0


@pytest.mark.parametrize("verb", ["export", "plan", "compare", "tune"])
def test_what_makes_bundles_says_what_to_install(verb: str, tmp_path: Path) -> None:
    out = [] if verb in ("plan", "compare") else ["-o", str(tmp_path / "out")]
    done = _on_the_base(verb, "tiny-reasoner", *out)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {verb} needs packages that are not installed: onnx, onnx-ir, gguf.")
    assert "pip install 'onnx>=1.17' 'onnx-ir>=0.1.14' 'gguf>=0.17' (the extra 'export')" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
