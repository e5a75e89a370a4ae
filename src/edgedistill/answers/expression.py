"""Formulas in one order and one spelling, without deciding what only algebra could decide.

A formula becomes a sum of products with exact coefficients: ``3 + 2x`` and ``2x+3``, ``\\frac{\\sqrt2}{2}`` and
``\\sqrt{2}/2``,
``\\sqrt{12}`` and ``2\\sqrt3`` have one key each. Products of sums are not expanded (factored and expanded forms stay
apart),
and arithmetic on plain numbers is not carried out: ``3 * 4`` is not ``2 * 6``.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from edgedistill.answers.plain import FUNCTIONS, NAMES

_TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?|\.\d+)|([A-Za-z]+|[^\W\d_a-zA-Z]+)|(\+-|->|\.\.\.|[-+*/^_!()\[\]|,']))")
_MAX_DEPTH = 24
_MAX_POWER = 64
_MAX_DIGITS = 60
_OPAQUE_CALLS = frozenset(("binom", "overline", "vec", "hat", "bar", "widehat", "root", "sqrt", *FUNCTIONS))
_APART = re.compile(
    r"(?<![A-Za-z])([A-Za-z]{2,})(?= +[\w(])|(?<=[\w)] )([A-Za-z]{2,})(?![A-Za-z])|(?<=\d)(?:st|nd|rd|th)\b"
)
"""Words with a space between them and what else there is: prose, unless they are names of a formula."""

Product = tuple[tuple[str, "Fraction | str"], ...]
"""Factors as (base, exponent), sorted."""
Sum = dict[Product, Fraction]


class NotAFormula(ValueError):
    """The text is no formula of this grammar."""


def expression_key(text: str) -> str | None:
    """The key of a formula in ``plain`` spelling (no relation signs); None where it is none."""
    try:
        parser = _Parser(text)
        value = parser.whole()
    except (NotAFormula, ZeroDivisionError, OverflowError):
        return None
    if set(value) <= {()} and parser.calculates:
        return re.sub(r"(?<![\w)])\((\w+)\)", r"\1", re.sub(r"\s+", "", text))
    return render(value)


def render(value: Sum) -> str:
    """The key of a sum: terms of high degree first."""
    terms = sorted(((mono, coefficient) for mono, coefficient in value.items() if coefficient), key=_order)
    out = ""
    for mono, coefficient in terms:
        sign = "-" if coefficient < 0 else ("+" if out else "")
        out += sign + _term(mono, abs(coefficient))
    return out or "0"


def _order(term: tuple[Product, Fraction]) -> tuple[Fraction, str]:
    degree = sum((exponent for _, exponent in term[0] if isinstance(exponent, Fraction)), start=Fraction(0))
    return -degree, _term(term[0], Fraction(1))


def _term(mono: Product, coefficient: Fraction) -> str:
    if not mono:
        return str(coefficient)
    factors = [_factor(base, exponent) for base, exponent in mono]
    plain = all(re.fullmatch(r"[A-Za-z](\^\d+)?", factor) for factor in factors)
    joined = ("" if plain else "*").join(factors)
    top = "" if coefficient.numerator == 1 else str(coefficient.numerator)
    bottom = "" if coefficient.denominator == 1 else f"/{coefficient.denominator}"
    return top + ("*" if top and not plain and joined[:1].isdigit() else "") + joined + bottom


def _factor(base: str, exponent: Fraction | str) -> str:
    if exponent == 1:
        return base
    if exponent == Fraction(1, 2):
        return f"sqrt({base.removeprefix('(').removesuffix(')') if _wrapped(base) else base})"
    power = exponent if isinstance(exponent, str) else str(exponent)
    return f"{base}^{power}" if re.fullmatch(r"\d+|[A-Za-z]", power) else f"{base}^({power})"


def _wrapped(base: str) -> bool:
    return base.startswith("(") and base.endswith(")") and ")" not in base[1:-1]


def _number(value: Fraction | int) -> Sum:
    return {(): Fraction(value)}


def _atom(name: str) -> Sum:
    return {((name, Fraction(1)),): Fraction(1)}


def _constant(value: Sum) -> Fraction | None:
    if not value:
        return Fraction(0)
    return value[()] if set(value) == {()} else None


def _add(first: Sum, second: Sum, sign: int = 1) -> Sum:
    total = dict(first)
    for mono, coefficient in second.items():
        total[mono] = total.get(mono, Fraction(0)) + sign * coefficient
    return {mono: coefficient for mono, coefficient in total.items() if coefficient}


def _single(value: Sum) -> tuple[Product, Fraction]:
    """One product; a sum becomes a factor in parentheses."""
    if not value:
        return (), Fraction(0)
    if len(value) == 1:
        return next(iter(value.items()))
    return ((f"({render(value)})", Fraction(1)),), Fraction(1)


def _multiply(first: Sum, second: Sum) -> Sum:
    for one, other in ((first, second), (second, first)):
        if _constant(one) == -1 and len(other) > 1:
            return {mono: -coefficient for mono, coefficient in other.items()}
    (left, a), (right, b) = _single(first), _single(second)
    coefficient = _bounded(a * b)
    factors: dict[str, Fraction | str] = dict(left)
    for base, exponent in right:
        known = factors.get(base, Fraction(0))
        if isinstance(known, str) or isinstance(exponent, str):
            factors[base] = exponent if known == 0 else f"{known}+{exponent}"
        else:
            factors[base] = known + exponent
    for base, exponent in list(factors.items()):
        if base.isdigit() and isinstance(exponent, Fraction):  # roots of whole numbers: keep exponents in [0, 1)
            whole = math.floor(exponent)
            coefficient = _bounded(coefficient * _power_of(Fraction(int(base)), whole))
            factors[base] = exponent - whole
    mono = tuple(sorted(((base, e) for base, e in factors.items() if e != 0), key=lambda item: (item[0], str(item[1]))))
    return {mono: coefficient} if coefficient else {}


def _power_of(base: Fraction, exponent: int) -> Fraction:
    if abs(exponent) > _MAX_POWER or abs(exponent) * len(str(base)) > 4 * _MAX_POWER:
        raise NotAFormula
    return base**exponent


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() > 4096 or value.denominator.bit_length() > 4096:
        raise NotAFormula
    return value


def _root(value: Fraction) -> Sum:
    """sqrt of a number >= 0 as a coefficient times the root of a number without square factors (below 10^6)."""
    inner = value.numerator * value.denominator
    if inner > 10**12:
        raise NotAFormula
    outer, factor = 1, 2
    while factor * factor <= inner and factor < 1000:
        while inner % (factor * factor) == 0:
            inner //= factor * factor
            outer *= factor
        factor += 1
    if (whole := math.isqrt(inner)) ** 2 == inner:
        outer, inner = outer * whole, 1
    coefficient = Fraction(outer, value.denominator)
    return _number(coefficient) if inner == 1 else {((str(inner), Fraction(1, 2)),): coefficient}


def _power(base: Sum, exponent: Sum) -> Sum:
    power = _constant(exponent)
    value = _constant(base)
    if value is not None and power == Fraction(1, 2) and value >= 0:
        return _root(value)
    if power is not None and power.denominator == 1:
        if value is not None:
            return _number(_bounded(_power_of(value, int(power))))
        if len(base) == 1:
            mono, coefficient = _single(base)
            if all(isinstance(e, Fraction) for _, e in mono):
                raised = tuple((name, e * power) for name, e in mono if isinstance(e, Fraction))
                return _multiply({raised: _power_of(coefficient, int(power))}, _number(1))
    name = render(base)
    if not re.fullmatch(r"\w+", name):
        name = f"({name})"
    return {((name, power if power is not None else render(exponent)),): Fraction(1)}


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
        sign = 1
        while self._peek() in ("+", "-"):
            sign = -sign if self._take() == "-" else sign
        total = self._product()
        if sign < 0:
            total = _multiply(_number(-1), total)
        while self._peek() in ("+", "-", "+-"):
            operator = self._take()
            right = self._product()
            self.calculates = True
            if operator == "+-":
                total = _add(total, _atom(f"(+-{render(right)})"))
            else:
                total = _add(total, right, 1 if operator == "+" else -1)
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
                    if (value := _constant(right)) is not None and value == 0:
                        raise NotAFormula
                    right = _power(right, _number(-1))
                else:
                    self.calculates = True
                total = _multiply(total, right)
            elif following and (following[0].isalnum() or following in ("(", "|")):
                if following[0].isdigit() and self._tokens[self._at - 1][0].isdigit():
                    raise NotAFormula  # "3 5" is no product
                if following == "|" and self._bars:
                    return total
                self.calculates = True
                total = _multiply(total, self._powered())
            else:
                return total

    _bars = 0

    def _signed(self) -> Sum:
        if self._peek() == "-":
            self._take()
            return _multiply(_number(-1), self._powered())
        if self._peek() == "+-":
            self._take()
            return _atom(f"(+-{render(self._powered())})")
        return self._powered()

    def _powered(self) -> Sum:
        base = self._primary()
        while self._peek() in ("!", "'"):
            base = _atom(f"({render(base)})!" if len(base) > 1 else f"{render(base)}{self._peek()}")
            self._take()
        if self._peek() == "^":
            self._take()
            self.calculates = True
            exponent = self._exponent()
            return _power(base, exponent)
        return base

    def _exponent(self) -> Sum:
        if self._peek() == "-":
            self._take()
            return _multiply(_number(-1), self._primary())
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
            return _atom(f"abs({render(value)})")
        is_number = token[:1].isdecimal() or (token[:1] == "." and token != "...")
        if not is_number and not token[:1].isalnum():
            raise NotAFormula
        self._take()
        if is_number:
            if len(token) > _MAX_DIGITS:
                raise NotAFormula
            if self._peek() == "_":  # a number in another base
                self._take()
                return _atom(f"{token}_{self._subscript()}")
            return _number(Fraction(token))
        if token in _OPAQUE_CALLS:
            return self._call(token)
        if token in NAMES:
            return _atom(token)
        if len(token) == 1:
            return self._symbol(token)
        raise NotAFormula

    def _symbol(self, name: str) -> Sum:
        if self._peek() == "_":
            self._take()
            name += "_" + self._subscript()
        while self._peek() == "'":
            name += self._take()
        if name.rstrip("'") in ("f", "g", "h", "P") and self._peek() == "(":
            self._take()
            return _atom(f"{name}({self._arguments()})")
        return _atom(name)

    def _subscript(self) -> str:
        if self._peek() == "(":
            return render(self._group())
        return self._take()

    def _arguments(self) -> str:
        parts = [render(self._sum())]
        while self._peek() == ",":
            self._take()
            parts.append(render(self._sum()))
        self._take(")")
        return ",".join(parts)

    def _call(self, name: str) -> Sum:
        power: Sum | None = None
        if self._peek() == "_":
            self._take()
            name += "_" + self._subscript()
        if self._peek() == "^":
            self._take()
            power = self._exponent()
        if name in ("overline", "vec", "hat", "bar", "widehat"):
            return _atom(f"{name}({self._letters()})")
        if self._peek() == "(":
            if name == "sqrt":
                return _power(self._group(), _number(Fraction(1, 2)))
            if name == "root":
                self._take()
                index = self._sum()
                self._take(",")
                inner = self._sum()
                self._take(")")
                return _power(inner, _power(index, _number(-1)))
            self._take()
            value = _atom(f"{name}({self._arguments()})")
        else:
            inner = self._powered()
            value = _power(inner, _number(Fraction(1, 2))) if name == "sqrt" else _atom(f"{name}({render(inner)})")
        return value if power is None else _power(value, power)

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
    if not tokens:
        raise NotAFormula
    return tokens
