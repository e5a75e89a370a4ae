"""The page of the Python API: what ``edgedistill`` exports, and the modules that its guides name."""

from __future__ import annotations

import importlib
import inspect

import edgedistill

_MORE = ("edgedistill.errors",)
"""Modules whose public names belong to the API without being exported at the top."""


def page() -> str:
    """Markdown with a directive of mkdocstrings for every public name, functions before classes."""
    names = [name for name in edgedistill.__all__ if not name.startswith("_")]
    members = {name: getattr(edgedistill, name) for name in names}
    functions = [n for n, m in members.items() if inspect.isfunction(m)]
    classes = [n for n, m in members.items() if inspect.isclass(m)]
    parts = ["## Functions", *(_directive(members[n]) for n in functions)]
    parts += ["## Classes", *(_directive(members[n]) for n in classes)]
    parts += ["## Errors", "Every error that a user can cause is an `EdgedistillError`."]
    for module in _MORE:
        for name, member in vars(importlib.import_module(module)).items():
            if inspect.isclass(member) and member.__module__ == module and member not in members.values():
                parts.append(_directive(members.get(name, member)))
    return "\n\n".join(parts) + "\n"


def _directive(member: type | object) -> str:
    inherits = inspect.isclass(member) and not issubclass(member, Exception)
    options = "\n    options: {inherited_members: true}" if inherits else ""
    return f"::: {member.__module__}.{getattr(member, '__qualname__', '')}{options}"
