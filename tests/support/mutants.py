"""Small changes of a Python module, one at a time, and how one is put into the module that is already imported.

Changed are comparisons, arithmetic, conditions, constants and names of calls that have an opposite; statements and
keyword arguments are left out. Left alone are annotations, decorators, docstrings, errors with their texts, other
sentences for people, texts outside functions, and lines that match ``UNCHANGED``.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import sys
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    Path = tuple[tuple[str, int | None], ...]

UNCHANGED = {
    r"renamex_np|msvcrt|os\.name|hasattr\(os|getattr\(os": "what another platform runs",
}
"""Lines (regular expressions) whose changes no test on this machine can notice, and why."""

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
    ast.MatMult: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
_OPPOSITES = {
    one: other
    for pair in (
        "min max", "any all", "lower upper", "lstrip rstrip", "find rfind", "partition rpartition",
        "startswith endswith", "removeprefix removesuffix", "floor ceil", "argmin argmax",
    )
    for one, other in (pair.split(), pair.split()[::-1])
}  # fmt: skip
_GUARDS = ("strict", "encoding", "hint")  # of lengths that are equal, the machine's own encoding, a text for people
_SENTENCE = re.compile(r"\w \w+ \w")
_OPERATORS = ast.operator | ast.cmpop | ast.boolop | ast.unaryop
_SKIPPED = ("annotation", "returns", "decorator_list", "format_spec", "ctx", "type_comment")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of the node at ``path``.

    Attributes:
        lines: First and last of the node, and of the statement that holds it (of a compound one, its head).
        function: Qualified name of the outermost function that runs the node; None for what an import runs.
    """

    path: Path
    other: ast.AST
    lines: tuple[int, int]
    statement: tuple[int, int]
    function: str | None

    def tree(self, source: str) -> ast.Module:
        """The changed module."""
        tree = ast.parse(source)
        parent: Any = tree
        for name, index in self.path[:-1]:
            parent = getattr(parent, name) if index is None else getattr(parent, name)[index]
        name, index = self.path[-1]
        if index is None:
            setattr(parent, name, self.other)
        else:
            getattr(parent, name)[index] = self.other
        return ast.fix_missing_locations(tree)

    def difference(self, source: str) -> str:
        """The changed lines."""
        before, after = (ast.unparse(tree).splitlines() for tree in (ast.parse(source), self.tree(source)))
        lines = list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]
        return "\n".join(f"    {line}" for line in lines if not line.startswith("@@"))


def mutants(source: str) -> list[Mutant]:
    """All of a module, in the order of its text."""
    return list(_walk(ast.parse(source), (), None, (0, 0), "", source.splitlines()))


def _walk(
    node: ast.AST, path: Path, function: str | None, statement: tuple[int, int], scope: str, text: list[str]
) -> Iterator[Mutant]:
    if isinstance(node, ast.stmt):
        body = getattr(node, "body", None)
        last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
        statement = (node.lineno, max(last, node.lineno))
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return
    if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and _name(node.func).endswith("Error")):
        if isinstance(node, ast.Raise) and function is not None:
            yield Mutant(path, ast.Pass(lineno=node.lineno), statement, statement, function)
        return
    if isinstance(node, ast.expr | ast.stmt):
        lines = (node.lineno, statement[1] if isinstance(node, ast.stmt) else node.end_lineno or node.lineno)
        if not any(re.search(pattern, "\n".join(text[lines[0] - 1 : lines[1]])) for pattern in UNCHANGED):
            for other in _changes(node, inside=function is not None):
                yield Mutant(path, ast.copy_location(other, node), lines, statement, function)
    if isinstance(node, ast.keyword) and node.arg in _GUARDS:
        return
    inner = scope
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        inner = f"{scope}.{node.name}".lstrip(".")
    for name, value in ast.iter_fields(node):
        if name in _SKIPPED:
            continue
        held = function
        if isinstance(node, ast.FunctionDef) and name == "body" and function is None:
            held = inner
        entries = enumerate(value) if isinstance(value, list) else [(None, value)]
        for index, child in entries:
            if isinstance(child, ast.AST) and not isinstance(
                child, ast.operator | ast.cmpop | ast.boolop | ast.unaryop
            ):
                yield from _walk(child, (*path, (name, index)), held, statement, inner, text)


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _changes(node: ast.AST, *, inside: bool) -> Iterator[ast.AST]:
    """What may stand in the place of a node."""
    match node:
        case ast.Compare(left=left, ops=[operator], comparators=[right]):
            yield ast.Compare(left, [_COMPARISONS[type(operator)]()], [right])
        case ast.BinOp(left=left, op=operator, right=right):
            yield ast.BinOp(left, _ARITHMETIC[type(operator)](), right)
        case ast.AugAssign(target=target, op=operator, value=value):
            yield ast.AugAssign(target, _ARITHMETIC[type(operator)](), value)
        case ast.BoolOp(op=operator, values=values):
            yield ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Constant(value=bool() as value):
            yield ast.Constant(not value)
        case ast.Constant(value=int() | float() as value):
            yield ast.Constant(value + 1)
        case ast.Constant(value=str() as value) if inside and not _SENTENCE.search(value):
            yield ast.Constant(f"XX{value}XX")
        case ast.Name(id=name, ctx=ast.Load()) if name in _OPPOSITES:
            yield ast.Name(_OPPOSITES[name], ast.Load())
        case ast.Attribute(value=value, attr=name) if name in _OPPOSITES:
            yield ast.Attribute(value, _OPPOSITES[name], ast.Load())
        case ast.Call(func=func, args=args, keywords=keywords):
            for index, keyword in enumerate(keywords):
                if keyword.arg is not None and keyword.arg not in _GUARDS:
                    yield ast.Call(func, args, keywords[:index] + keywords[index + 1 :])
        case ast.Expr() | ast.Continue() | ast.Break() if inside:
            yield ast.Break() if isinstance(node, ast.Continue) else ast.Pass()
        case ast.If(test=test, body=body, orelse=orelse) if isinstance(test, ast.Name | ast.Attribute | ast.Call):
            yield ast.If(ast.UnaryOp(ast.Not(), test), body, orelse)
        case ast.IfExp(test=test, body=body, orelse=orelse) if isinstance(test, ast.Name | ast.Attribute | ast.Call):
            yield ast.IfExp(ast.UnaryOp(ast.Not(), test), body, orelse)


def put_in(mutant: Mutant, source: str, module: ModuleType) -> None:
    """Change ``module`` in this process: functions that others have imported from it are changed with it."""
    code = compile(mutant.tree(source), module.__file__ or "", "exec")
    if mutant.function is not None:
        _functions(module)[mutant.function].__code__ = _codes(code)[mutant.function]
        return
    fresh = ModuleType(module.__name__)
    fresh.__file__ = module.__file__
    exec(code, fresh.__dict__)
    live = _functions(module)
    for name, function in _functions(fresh).items():
        live[name].__defaults__, live[name].__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    for name, value in vars(fresh).items():
        if name.startswith("__") or isinstance(value, FunctionType | ModuleType) or hasattr(value, "__wrapped__"):
            continue
        if isinstance(value, type):
            for attribute, held in vars(value).items():
                if isinstance(held, int | float | str) and not attribute.startswith("__"):
                    setattr(getattr(module, name), attribute, held)
            continue
        old = vars(module)[name]
        for other in list(sys.modules.values()):
            if getattr(other, "__name__", "").startswith("edgedistill") and vars(other).get(name) is old:
                setattr(other, name, value)


def _functions(module: ModuleType) -> dict[str, FunctionType]:
    """By qualified name, those of its classes included; what wraps them is taken off."""
    found = {}
    for value in vars(module).values():
        own = getattr(value, "__module__", None) == module.__name__
        for held in [value, *(vars(value).values() if isinstance(value, type) else ())] if own else []:
            bare = getattr(held, "fget", getattr(held, "__func__", held))
            bare = inspect.unwrap(bare) if callable(bare) else bare
            if isinstance(bare, FunctionType):
                found[bare.__qualname__] = bare
    return found


def _codes(code: CodeType) -> dict[str, CodeType]:
    found = {code.co_qualname: code}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _codes(constant)
    return found
