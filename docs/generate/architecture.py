"""The page of the architecture: packages in the order of the import contract, with their docstrings' first lines."""

from __future__ import annotations

import ast
import tomllib
from html import escape
from typing import TYPE_CHECKING

from markup import cell, table

if TYPE_CHECKING:
    from pathlib import Path

_ROW, _WIDTH = 46, 760


def page(root: Path) -> str:
    """A picture and a table for every contract of layers in pyproject.toml."""
    contracts = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    parts = []
    for contract in contracts:
        if contract["type"] != "layers":
            continue
        container = contract.get("containers", [""])[0]
        layers = [[part.strip() for part in layer.split("|")] for layer in contract["layers"]]
        parts += [f"## {contract['name']}", _picture(layers)]
        names = [f"{container}.{name}" if container else name for layer in layers for name in layer]
        parts.append(table(("", "Holds"), ((f"`{name}`", cell(_sentence(root, name))) for name in names)))
    return "\n\n".join(parts) + "\n"


def _picture(layers: list[list[str]]) -> str:
    """Layers as an SVG: boxes of one line know nothing of each other, each may import from the lines below."""
    height = _ROW * len(layers)
    parts = []
    for row, names in enumerate(layers):
        width = _WIDTH / len(names)
        for column, name in enumerate(names):
            x, y = column * width + 4, row * _ROW + 4
            label = escape(name.removeprefix("edgedistill."))
            parts.append(
                f'<rect x="{x:.0f}" y="{y}" width="{width - 8:.0f}" height="{_ROW - 12}" rx="5" fill="none" '
                f'stroke="currentColor"/><text x="{x + width / 2 - 4:.0f}" y="{y + 22}" text-anchor="middle" '
                f'fill="currentColor" font-size="14">{label}</text>'
            )
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="Layers, the upper ones import the lower ones" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _sentence(root: Path, name: str) -> str:
    """The first line of a module's docstring."""
    base, *rest = name.split(".")
    place = (root / {"edgedistill": "src/edgedistill", "edgedistill_tui": "tui/edgedistill_tui"}[base]).joinpath(*rest)
    path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return doc.partition("\n")[0].replace("``", "`")
