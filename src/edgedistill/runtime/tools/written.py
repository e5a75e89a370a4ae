"""Arguments that are no JSON: calls as Python writes them, and braces with bare keys (Gemma)."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, Any

from edgedistill.runtime.tools.patterns import MAYBE, NO, skip_space

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgedistill.runtime.tools.types import Tool

_BEGIN = re.compile(r"\s*\[?\s*[A-Za-z_][\w.]*\s*\(")
_PART_OF_BEGIN = re.compile(r"\s*(?:\[\s*)?(?:[A-Za-z_][\w.]*\s*)?")
_WORDS = {"true": True, "false": False, "null": None}
_MOST_DEPTH = 50
_BARE = re.compile(r"[^,}\]]*")


def python_end(text: str, *, listed: bool, close: str, final: bool) -> int:
    """Where the calls end that ``text`` begins with, ``MAYBE`` or ``NO``.

    Args:
        text: So far.
        listed: In brackets, whose last one ends them.
        close: What ends them otherwise; without it they go to the end of the text.
        final: Nothing follows.
    """
    if not _BEGIN.match(text):
        return MAYBE if _PART_OF_BEGIN.fullmatch(text) and not final else NO
    if listed != (text.lstrip()[:1] == "["):
        return NO
    depth, quote, at = 0, "", 0
    while at < len(text):
        char = text[at]
        if quote:
            at += 1 if char == "\\" else 0
            quote = "" if char == quote and at < len(text) and text[at] == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        if not quote and not listed and close and depth == 0 and text.startswith(close, at):
            return at
        at += 1
        if depth < 0 or depth > _MOST_DEPTH:
            return NO
        if listed and depth == 0 and char == "]" and not quote:
            return at
    return len(text) if final and not listed and depth == 0 and not quote else MAYBE


def python_calls(text: str, tools: Mapping[str, Tool]) -> list[tuple[str, dict[str, Any]]] | None:
    """Names and arguments of calls such as ``[f(a=1), g(b="x")]`` or one a line; None if this is anything else."""
    try:
        tree = ast.parse(text.strip())
        values = [statement.value for statement in tree.body if isinstance(statement, ast.Expr)]
        if len(values) < len(tree.body):
            return None
        calls = [call for value in values for call in (value.elts if isinstance(value, ast.List) else [value])]
        return [_call(call, tools) for call in calls]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _call(node: ast.expr, tools: Mapping[str, Tool]) -> tuple[str, dict[str, Any]]:
    if not isinstance(node, ast.Call):
        raise ValueError("no call")
    name = ast.unparse(node.func)
    if name == "print" and name not in tools and len(node.args) == 1:  # as Gemma writes it
        return _call(node.args[0], tools)
    name = name if name in tools else name.removesuffix(".call")
    tool = tools.get(name)
    order = list(tool.parameters.get("properties", {})) if tool is not None else []
    if len(node.args) > len(order) and tool is not None:
        raise ValueError("more arguments than parameters")
    found = {key: _value(value) for key, value in zip(order, node.args, strict=False)}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("no keyword")
        found[keyword.arg] = _value(keyword.value)
    return name, found


def _value(node: ast.expr) -> Any:
    """A literal, with JSON's words as well; raises ValueError for anything else and for what JSON cannot say."""
    match node:
        case ast.Constant(value=str() | bool() | int() | float() | None as value):
            return value
        case ast.Name(id=word) if word in _WORDS:
            return _WORDS[word]
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [_value(part) for part in parts]
        case ast.Dict(keys=keys, values=values):
            return {_key(key): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case _:
            raise ValueError("no literal")


def _key(node: ast.expr | None) -> str:
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        raise ValueError("no text as a key")
    return node.value


def braced_end(text: str, at: int, quote: str) -> int:
    """Where the braces end that begin at ``text[at]``; ``MAYBE`` if they do not yet."""
    depth = 0
    while at < len(text):
        if text.startswith(quote, at):
            at = text.find(quote, at + len(quote))
            if at < 0:
                return MAYBE
            at += len(quote)
            continue
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(text[at], 0)
        at += 1
        if depth == 0:
            return at
        if depth > _MOST_DEPTH:
            return MAYBE
    return MAYBE


def braced_arguments(text: str, quote: str) -> dict[str, Any] | None:
    """The object that ``{a:1,b:<quote>x<quote>}`` is; None if it is malformed."""
    try:
        value, end = _braced(text, 0, quote)
    except (ValueError, IndexError):
        return None
    return value if end == len(text) and isinstance(value, dict) else None


def _braced(text: str, at: int, quote: str) -> tuple[Any, int]:
    at = skip_space(text, at)
    if text.startswith(quote, at):
        end = text.index(quote, at + len(quote))
        return text[at + len(quote) : end], end + len(quote)
    if text[at] in "{[":
        last = "}" if text[at] == "{" else "]"
        items: list[Any] = []
        at = skip_space(text, at + 1)
        while text[at] != last:
            if last == "}":
                colon = text.index(":", at)
                key = text[at:colon].strip().replace(quote, "").strip('"')
                value, at = _braced(text, colon + 1, quote)
                items.append((key, value))
            else:
                value, at = _braced(text, at, quote)
                items.append(value)
            at = skip_space(text, at)
            if text[at] not in (",", last):
                raise ValueError("no comma")
            at = skip_space(text, at + 1) if text[at] == "," else at
        return (dict(items) if last == "}" else items), at + 1
    bare = _BARE.match(text, at)
    end = at if bare is None else bare.end()
    return _bare(text[at:end].strip()), end


def _bare(word: str) -> Any:
    if word in _WORDS:
        return _WORDS[word]
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    if not word:
        raise ValueError("nothing")
    return word
