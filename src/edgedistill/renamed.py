"""Old names of keywords and of keys in files: they go on working, with one warning for each."""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class RenamedWarning(FutureWarning):
    """A name that has changed was used; the command line shows the message as one line."""


def accepts_old(*, of: str | None = None, **names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take keywords by their old names (``old="new"``); type checkers see the new ones alone.

    ``of`` is the name that the warning gives the function. Raises TypeError if both names are given.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = of or function.__name__

        @functools.wraps(function)
        def call(*args: P.args, **keywords: P.kwargs) -> R:
            for old in keywords.keys() & names.keys():
                new = names[old]
                if new in keywords:
                    raise TypeError(f"{name}() got {new!r} and {old!r}, its old name")
                _warn(f"the keyword {old} of {name} is called {new} now.")
                keywords[new] = keywords.pop(old)
            return function(*args, **keywords)

        return call

    return decorate


def fields_accept_old(**names: str) -> Callable[[type[T]], type[T]]:
    """The same for the constructor of a class."""

    def decorate(kind: type[T]) -> type[T]:
        kind.__init__ = accepts_old(of=kind.__name__, **names)(kind.__init__)  # type: ignore[method-assign]
        return kind

    return decorate


def current_keys(value: Any, names: Mapping[str, str], what: str) -> Any:
    """``value`` with the old keys in ``names`` (old to new) replaced; ``what`` names the file in the warning.

    A value of another kind is given back as it is.
    """
    if not isinstance(value, dict):
        return value
    current = dict(value)
    for old in [old for old in names if old in value and names[old] not in value]:
        _warn(f"{what} is of an earlier version: {old} is called {names[old]} now.")
        current[names[old]] = current.pop(old)
    return current


def _warn(message: str) -> None:
    warnings.warn(message, RenamedWarning, stacklevel=3)
