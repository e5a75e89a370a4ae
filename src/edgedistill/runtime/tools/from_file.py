"""Tools from a Python file: its public functions."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from typing import TYPE_CHECKING

from edgedistill.errors import EdgedistillError, UsageError
from edgedistill.runtime.tools.types import Tool

if TYPE_CHECKING:
    from pathlib import Path


def tools_from_file(path: Path) -> list[Tool]:
    """The functions that ``path`` defines (``__all__``, or those without a leading underscore). Runs its code.

    Raises:
        UsageError: No such file, code that fails, no function, or one that is no tool.
    """
    if not path.is_file():
        raise UsageError(f"There is no file {path}.", hint="--tools takes a Python file whose functions become tools.")
    name = f"edgedistill_tools_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file.", hint="--tools takes a file that ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # type hints are looked up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # somebody else's code
        raise UsageError(f"{path} cannot be run: {type(error).__name__}: {error}.") from error
    public = getattr(module, "__all__", None)
    functions = [
        value for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == name
        and (key in public if public is not None else not key.startswith("_"))
    ]  # fmt: skip
    if not functions:
        raise UsageError(f"{path} defines no function.", hint="Write one with type hints and a docstring.")
    try:
        return [Tool.of(function) for function in functions]
    except EdgedistillError as error:
        raise UsageError(f"{path}: {error}") from error
