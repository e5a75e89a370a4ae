"""One operation on two whole numbers, written out so that every single equation is easy.

`explain` is the only entry. It never writes a negative number or a fraction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random


def apply(a: int, op: str, b: int) -> int:
    """Return a op b; division must be exact."""
    if op == "+":
        return a + b
    if op == "-":
        return a - b
    if op == "*":
        return a * b
    if op == "/" and b and a % b == 0:
        return a // b
    raise ValueError(f"cannot apply {a} {op} {b} exactly")


def explain(a: int, op: str, b: int, rng: Random) -> str:
    """Return `a op b = c`, or `a op b: ..., ... = c` with the operation split by place value.

    The last number written is the result. `rng` picks among the valid ways to split.
    """
    if op == "+":
        parts = _add(a, b, rng)
    elif op == "-":
        parts = _subtract(a, b, rng)
    elif op == "*":
        parts = _multiply(a, b, rng)
    else:
        parts = _divide(a, b)
    if len(parts) == 1:
        return parts[0]
    return f"{a} {op} {b}: " + ", ".join(parts)


def places(n: int) -> list[int]:
    """Split 347 into [300, 40, 7], leaving zeros out."""
    digits = str(n)
    return [int(d) * 10 ** (len(digits) - 1 - i) for i, d in enumerate(digits) if d != "0"]


def equation(a: int, op: str, b: int) -> str:
    return f"{a} {op} {b} = {apply(a, op, b)}"


def _jumps(start: int, op: str, jumps: list[int]) -> list[str]:
    parts = []
    for jump in jumps:
        parts.append(equation(start, op, jump))
        start = apply(start, op, jump)
    return parts


def _add(a: int, b: int, rng: Random) -> list[str]:
    if len(places(a)) <= 1 or len(places(b)) <= 1:
        return [equation(a, "+", b)]
    if a < 100 and b < 100 and rng.random() < 0.3:
        (ta, oa), (tb, ob) = places(a), places(b)
        halves = [equation(ta, "+", tb), equation(oa, "+", ob)]
        if rng.random() < 0.3:
            halves.reverse()
        return [*halves, equation(ta + tb, "+", oa + ob)]
    jumps = places(b)
    if rng.random() < 0.2:
        jumps.reverse()
    return _jumps(a, "+", jumps)


def _subtract(a: int, b: int, rng: Random) -> list[str]:
    jumps = places(b)
    if len(jumps) <= 1:
        return [equation(a, "-", b)]
    if rng.random() < 0.2:
        jumps.reverse()
    return _jumps(a, "-", jumps)


def _multiply(a: int, b: int, rng: Random) -> list[str]:
    if (len(places(a)) <= 1 and len(places(b)) <= 1) or a in (10, 100, 1000) or b in (10, 100, 1000):
        return [equation(a, "*", b)]
    many, few = (a, b) if len(places(a)) >= len(places(b)) else (b, a)
    if len(places(few)) > 1:  # both have several digits: split the second, keep the partial products whole
        many, few = a, b
        pieces = places(few)
        partial = [(many, p) for p in pieces]
    else:
        partial = [(p, few) for p in places(many)]
    if rng.random() < 0.2:
        partial.reverse()
    parts = [equation(x, "*", y) for x, y in partial]
    products = [x * y for x, y in partial]
    return parts + _jumps(products[0], "+", products[1:])


def _divide(a: int, b: int) -> list[str]:
    quotient = apply(a, "/", b)
    pieces = places(quotient)
    if quotient <= 10 or len(pieces) <= 1 or len(places(b)) > 1:
        return [equation(a, "/", b)]
    parts = [equation(p * b, "/", b) for p in pieces]
    return parts + _jumps(pieces[0], "+", pieces[1:])
