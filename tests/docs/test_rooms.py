"""The docstrings of the packages: a newcomer finds his way by them, so what they name must be there and be enforced."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

from edgedistill.cli.parser import VERBS

ROOT = Path(__file__).parents[2]
TREES = {"edgedistill": ROOT / "src/edgedistill", "edgedistill_tui": ROOT / "tui/edgedistill_tui"}
PACKAGES = sorted(
    ".".join((name, *path.parent.relative_to(tree).parts))
    for name, tree in TREES.items()
    for path in tree.rglob("__init__.py")
    if path.parent != TREES["edgedistill"]
)


def _path(module: str) -> Path | None:
    """The file of a module or package, or None."""
    root, *rest = module.split(".")
    if root not in TREES:
        return None
    place = TREES[root].joinpath(*rest)
    return next((p for p in (place / "__init__.py", place.with_suffix(".py")) if p.is_file()), None)


@cache
def _names(path: Path) -> frozenset[str]:
    """Names that a module binds at its top level, imports among them; read without running it (it may want PyTorch)."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    return frozenset(names)


def _exists(dotted: str) -> bool:
    if _path(dotted):
        return True
    module, _, name = dotted.rpartition(".")
    path = _path(module)
    return path is not None and name in _names(path)


def _doc(package: str) -> str:
    path = _path(package)
    assert path is not None
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def _quoted(text: str) -> list[str]:
    """Names in double backticks; commands, calls and files are something else."""
    quoted = re.findall(r"``([A-Za-z_][\w.]*)``", text)
    return [q for q in quoted if not q.endswith((".json", ".toml", ".py"))]


def _full(package: str, name: str) -> str | None:
    """A name as a docstring of ``package`` gives it: beside the package's modules, or from a package around it."""
    parts = package.split(".")
    tries = [".".join((*parts[:depth], name)) for depth in range(len(parts), -1, -1)] + [f"edgedistill.{name}"]
    return next((full for full in tries if _exists(full)), None)


def _ranks() -> dict[str, int]:
    """Every module that a contract of layers names, by the number of its layer; higher layers have lower numbers."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    ranks: dict[str, int] = {}
    for number, contract in enumerate(c for c in contracts if c["type"] == "layers"):
        container = contract.get("containers", [""])[0]
        for rank, layer in enumerate(contract["layers"]):
            for name in layer.split("|"):
                full = f"{container}.{name.strip()}" if container else name.strip()
                ranks[full] = 100 * number + rank
    return ranks


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_holds_and_where_to_start(package: str) -> None:
    doc = _doc(package)
    first = doc.partition("\n")[0]
    assert first.endswith("."), f"the first line of {package}'s docstring is a sentence: {first!r}"
    assert "tart at ``" in doc or "is one file here" in doc, f"{package} does not say where to start"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_name_in_a_packages_docstring_exists(package: str) -> None:
    known = {verb.name for verb in VERBS}
    gone = [name for name in _quoted(_doc(package)) if name not in known and _full(package, name) is None]
    assert not gone, f"the docstring of {package} names what is not there: {', '.join(gone)}"


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_never_imports_is_what_the_contract_forbids(package: str) -> None:
    promise = re.search(r"Never imports (.*?)[.:;](?:\s|$)", _doc(package), re.DOTALL)
    if promise is None:
        assert package in {"edgedistill.cli", "edgedistill_tui.screens"}
        return
    ranks = _ranks()
    for name in _quoted(promise[1]):
        full = _full(package, name)
        assert full is not None
        assert full in ranks, f"{full} is in no contract"
        # The layer of the package, or of the package around it, in the contract that names the other one.
        own = [rank for name, rank in ranks.items() if f"{package}.".startswith(f"{name}.") and name != full]
        forbidden = any(rank // 100 == ranks[full] // 100 and rank >= ranks[full] for rank in own)
        assert forbidden, f"no contract keeps {package} from importing {full}"


def test_names_that_are_not_there_are_noticed() -> None:
    assert _full("edgedistill.runtime", "model.open_bundle") == "edgedistill.runtime.model.open_bundle"
    assert _full("edgedistill.runtime", "model.opened_bundle") is None
    assert _full("edgedistill.runtime", "models.open_bundle") is None
