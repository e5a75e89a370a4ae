"""Formulas in one order and one spelling, without deciding what only algebra could decide.

A formula becomes a sum of products with exact coefficients: ``3 + 2x`` and ``2x+3``, ``\\frac{\\sqrt2}{2}`` and
``\\sqrt{2}/2``, ``\\sqrt{12}`` and ``2\\sqrt3`` have one key each. Products of sums are not expanded (factored and expanded forms stay
apart), and sums and products of plain numbers are not carried out: ``3 * 4`` is not ``2 * 6``. A single power, factorial,
root, logarithm or the like of plain numbers has the key of its value.
"""

from __future__ import annotations

import re
from fractions import Fraction

from edgedistill.answers import algebra, arithmetic
from edgedistill.answers.algebra import NotAFormula, Sum
from edgedistill.answers.plain import FUNCTIONS, NAMES

_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?|\.\d+)|([A-Za-z]+|[^\W\d_a-zA-Z]+)|(\+-|->|\.\.\.|[-+*/^_!()\[\]|,']))")
_MAX_DEPTH = 24
_OVER_LETTERS = frozenset(("overline", "vec", "hat", "bar", "widehat"))
_OPAQUE_CALLS = frozenset(("binom", "root", "sqrt", *_OVER_LETTERS, *FUNCTIONS))
_INVERTED = frozenset(("sin", "cos", "tan"))
_CALLED = "fghP"
_COMBINATIONS = (
    re.compile(r"(?<![\w^])C\((\d+), ?(\d+)\)"),
    re.compile(r"(?:\(\))?_\(?(\d+)\)?C_\(?(\d+)\)?"),
)
_DERIVATIVE = re.compile(r"\(?\bd[a-z]?\b\)?\s*/\s*\(?d[a-z]\b\)?")
"""dy/dx, whose d is no factor."""
_APART = re.compile(
    r"(?<![A-Za-z])([A-Za-z]{2,})(?= +[\w(])|(?<=[\w)] )([A-Za-z]{2,})(?![A-Za-z])|(?<=\d)(?:st|nd|rd|th)\b"
)
"""Words with a space between them and what else there is: prose, unless they are names of a formula."""


def expression_key(text: str) -> str | None:
    """The key of a formula in ``plain`` spelling (no relation signs); None where it is none."""
    for pattern in _COMBINATIONS:
        text = pattern.sub(r"binom(\1, \2)", text)
    text = _DERIVATIVE.sub(lambda found: re.sub(r"\bd([a-z])\b", r"d_\1", found.group()), text)
    try:
        parser = _Parser(text)
        value = parser.whole()
    except (NotAFormula, ZeroDivisionError, OverflowError):
        return None
    if set(value) <= {()} and parser.calculates:
        return re.sub(r"(?<![\w)])\((\w+)\)", r"\1", re.sub(r"\s+", "", text))
    return algebra.render(value)


def value(text: str) -> Fraction | None:
    """The value of a calculation with plain numbers in ``plain`` spelling; None where it is none."""
    try:
        return algebra.constant(_Parser(text).whole())
    except (NotAFormula, ZeroDivisionError, OverflowError):
        return None


class _Parser:
    """Recursive descent over a formula in ``plain`` spelling."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self.calculates = False

    def whole(self) -> Sum:
        value = self._sum()
        if self._peek():
            raise NotAFormula
        return value

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, token: str = "") -> str:
        found = self._peek()
        if not found or (token and found != token):
            raise NotAFormula
        self._at += 1
        return found

    def _sum(self) -> Sum:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise NotAFormula
        negative = False
        while self._peek() in ("+", "-"):
            negative ^= self._take() == "-"
        total = self._product()
        if negative:
            total = algebra.multiply(algebra.number(-1), total)
        while self._peek() in ("+", "-", "+-"):
            operator = self._take()
            right = self._product()
            self.calculates = True
            if operator == "+-":
                total = algebra.add(total, algebra.atom(f"(+-{algebra.render(right)})"))
            else:
                total = algebra.add(total, right, 1 if operator == "+" else -1)
        self._depth -= 1
        return total

    def _product(self) -> Sum:
        total = self._signed()
        while True:
            following = self._peek()
            if following in ("*", "/"):
                operator = self._take()
                right = self._signed()
                if operator == "/":
                    right = algebra.power(right, algebra.number(-1))
                else:
                    self.calculates = True
                total = algebra.multiply(total, right)
            elif following and (following[0].isalnum() or following in ("(", "|")):
                if following[0].isdigit() and self._tokens[self._at - 1][0].isdigit():
                    raise NotAFormula  # "3 5" is no product
                if following == "|" and self._bars:
                    return total
                self.calculates = True
                total = algebra.multiply(total, self._powered())
            else:
                return total

    _bars = 0

    def _signed(self) -> Sum:
        if self._peek() == "-":
            self._take()
            return algebra.multiply(algebra.number(-1), self._powered())
        if self._peek() == "+-":
            self._take()
            return algebra.atom(f"(+-{algebra.render(self._powered())})")
        return self._powered()

    def _powered(self) -> Sum:
        base = self._primary()
        while self._peek() in ("!", "'"):
            mark = self._take()
            value = arithmetic.factorial(algebra.constant(base)) if mark == "!" != self._peek() else None
            if value is not None:
                base = algebra.number(value)
                continue
            name = algebra.render(base)
            base = algebra.atom((f"({name})" if len(base) > 1 else name) + mark)
            if mark == "!" == self._peek():
                base = algebra.atom(algebra.render(base) + self._take())
        if self._peek() == "^":
            self._take()
            exponent = self._exponent()
            return algebra.power(base, exponent)
        return base

    def _exponent(self) -> Sum:
        if self._peek() == "-":
            self._take()
            return algebra.multiply(algebra.number(-1), self._primary())
        return self._powered() if self._peek() != "(" else self._primary()

    def _group(self, closing: str = ")") -> Sum:
        self._take()
        value = self._sum()
        self._take(closing)
        return value

    def _primary(self) -> Sum:
        token = self._peek()
        if token == "(":
            return self._group()
        if token == "|":
            self._take()
            self._bars += 1
            value = self._sum()
            self._bars -= 1
            self._take("|")
            return self._called("abs", [value])
        is_number = token[:1].isdecimal() or (token[:1] == "." and token != "...")
        if not is_number and not token[:1].isalnum():
            raise NotAFormula
        self._take()
        if is_number:
            if len(token) > algebra.MAX_DIGITS:
                raise NotAFormula
            if self._peek() == "_":  # a number in another base
                self._take()
                return algebra.atom(f"{token}_{self._subscript()}")
            return algebra.number(Fraction(token))
        if token in _OPAQUE_CALLS:
            return self._call(token)
        return algebra.atom(token) if token in NAMES else self._symbol(token)

    def _symbol(self, name: str) -> Sum:
        if self._peek() == "_":
            self._take()
            name += "_" + self._subscript()
        while self._peek() == "'":
            name += self._take()
        if name[0] in _CALLED and self._peek() == "(":
            self._take()
            return self._called(name, self._arguments())
        return algebra.atom(name)

    def _subscript(self) -> str:
        if self._peek() == "(":
            inner = algebra.render(self._group())
            return inner if inner.isalnum() else f"({inner})"
        return self._take()

    def _arguments(self) -> list[Sum]:
        parts = [self._sum()]
        while self._peek() == ",":
            self._take()
            parts.append(self._sum())
        self._take(")")
        return parts

    def _called(self, name: str, arguments: list[Sum]) -> Sum:
        """A function of its arguments, worked out where they are numbers."""
        values = [value for one in arguments if (value := algebra.constant(one)) is not None]
        found = arithmetic.value_of(name, values) if len(values) == len(arguments) else None
        if found is not None:
            return algebra.number(found)
        return algebra.atom(f"{name}({','.join(map(algebra.render, arguments))})")

    def _call(self, name: str) -> Sum:
        power: Sum | None = None
        if self._peek() == "_":
            self._take()
            name += "_" + self._subscript()
        if self._peek() == "^":
            self._take()
            power = self._exponent()
            if name in _INVERTED and algebra.constant(power) == -1:
                name, power = f"arc{name}", None
        if name in _OVER_LETTERS:
            return algebra.atom(f"{name}({self._letters()})")
        if self._peek() == "(":
            self._take()
            arguments = self._arguments()
        else:
            arguments = [self._implied(name)]
        value = self._applied(name, arguments)
        return value if power is None else algebra.power(value, power)

    def _implied(self, name: str) -> Sum:
        """The argument of a function without brackets: all of 2x in cos 2x; one factor under a root."""
        counted = self._peek()[:1].isdigit()
        value = self._powered()
        while (
            counted
            and name != "sqrt"
            and (self._peek() in NAMES or (len(self._peek()) == 1 and self._peek().isalpha()))
        ):
            value = algebra.multiply(value, self._powered())
        return value

    def _applied(self, name: str, arguments: list[Sum]) -> Sum:
        """A named function of its arguments; roots and exp are powers."""
        if name in ("sqrt", "exp") and len(arguments) == 1:
            half = algebra.number(Fraction(1, 2))
            return (
                algebra.power(arguments[0], half) if name == "sqrt" else algebra.power(algebra.atom("e"), arguments[0])
            )
        if name == "root" and len(arguments) == 2:
            return algebra.power(arguments[1], algebra.power(arguments[0], algebra.number(-1)))
        if name in ("sqrt", "root"):
            raise NotAFormula
        return self._called(name, arguments)

    def _letters(self) -> str:
        self._take("(")
        out = ""
        while self._peek() != ")":
            out += self._take()
        self._take(")")
        return out


def _tokens(text: str) -> list[str]:
    """Tokens; a run of letters that is no name is letters of their own (two at most where nothing else is a
    formula).
    """
    tokens: list[str] = []
    at = 0
    if any((one or other) not in NAMES and (one or other) not in _OPAQUE_CALLS for one, other in _APART.findall(text)):
        raise NotAFormula
    formula = re.search(r"[+*^_\d()!]", text) is not None
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            if text[at:].isspace():
                break
            raise NotAFormula
        number, word, sign = found.groups()
        at = found.end()
        if word and not (word in NAMES or word in _OPAQUE_CALLS or len(word) == 1):
            if not formula or len(word) > 3 or not word.isascii():
                raise NotAFormula
            tokens += list(word)
        elif (
            number
            and tokens
            and tokens[-1].isalpha()
            and found.start() == found.start(1)
            and tokens[-1] not in NAMES
            and tokens[-1] not in FUNCTIONS
        ):
            raise NotAFormula  # "H2O", "x2"
        else:
            tokens.append(number or word or sign)
    return tokens
