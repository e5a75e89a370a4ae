"""Bare calculations: sums of terms, brackets and spoken chains, in many phrasings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .plan import Plan, Term, band_of, in_range, reply_text
from .problem import Problem

if TYPE_CHECKING:
    from random import Random

ASK = (
    "What is {}?",
    "What is {}?",
    "Calculate {}.",
    "Compute {}.",
    "{} = ?",
    "{}",
    "How much is {}?",
    "Please work out {}.",
    "Solve: {}",
    "Work out {}.",
    "Can you tell me what {} is?",
    "I need the value of {}.",
    "Evaluate {}.",
    "hey, what's {}?",
    "Find {}.",
    "What does {} equal?",
    "Could you calculate {} for me?",
    "What do you get for {}?",
    "what is {}",
    "{}=",
)
WORDS = {"+": " plus ", "-": " minus ", "*": " times ", "/": " divided by "}
SYMBOLS = {"*": ("*", "×", "x", "·"), "/": ("/", "÷", ":"), "+": ("+",), "-": ("-", "-", "−")}


def make(band: str, rng: Random) -> Problem:
    """Return a calculation of the band."""
    while True:
        plan = _draw(band, rng)
        if plan is not None:
            break
    return Problem(
        family="arithmetic",
        band=band,
        key=plan.key,
        question=_question(plan, rng),
        reasoning="\n".join(plan.solve(rng)),
        reply=reply_text(plan.value, ("It is {}.", "The result is {}."), rng),
        answer=str(plan.value),
    )


def _draw(band: str, rng: Random) -> Plan | None:
    if band == "hard":
        return _hard(rng)
    if band == "stretch":
        kind = rng.random()
        if kind < 0.4:
            plan = _plan(rng, 4, rng.randint(0, 2), 99)
            return plan if plan.operations == 4 and in_range(plan) else None
        if kind < 0.75:
            plan = _plan(rng, rng.choice((1, 2)), 0, 999)
            return plan if plan.is_sound(1999) else None
        return Plan((Term(1, rng.randint(100, 499), "*", rng.randint(2, 9)),))
    wanted = {"one-step": 1, "two-step": 2, "three-step": 3}[band]
    plan = _plan(rng, wanted, rng.randint(0, 2) if wanted > 1 else rng.randint(0, 1), 99)
    return plan if plan.operations == wanted and band_of(wanted) == band and in_range(plan) else None


def _hard(rng: Random) -> Plan | None:
    kind = rng.random()
    if kind < 0.3:
        plan = _plan(rng, rng.choice((1, 2, 2, 3)), 0, 9999)
        return plan if plan.is_sound(19999) and max(plan.numbers()) > 1000 else None
    if kind < 0.55:
        return Plan((Term(1, rng.randint(11, 99), "*", rng.randint(11, 99)),))
    if kind < 0.75:
        plan = _plan(rng, rng.choice((5, 6)), rng.randint(0, 2), 99)
        return plan if plan.operations >= 5 and plan.is_sound(1999) else None
    if kind < 0.9:
        plan = _plan(rng, rng.choice((3, 4)), rng.randint(0, 1), 999)
        return plan if plan.operations >= 3 and plan.is_sound(9999) and max(plan.numbers()) > 500 else None
    divisor, quotient = rng.randint(3, 9), rng.randint(101, 999)
    return Plan((Term(1, divisor * quotient, "/", divisor),))


def _plan(rng: Random, operations: int, composites: int, operand: int) -> Plan:
    outer = None
    if operations >= 2 and operand <= 99 and rng.random() < 0.2:
        outer = (rng.choice("**/"), rng.randint(2, 9))
        operations -= 1
    composites = min(composites, operations)
    slots = operations - composites + 1
    if composites > slots:
        composites, slots = slots, operations - slots + 1
    which = set(rng.sample(range(max(slots, composites)), composites))
    terms = []
    for index in range(slots):
        sign = 1 if index == 0 or rng.random() < 0.55 else -1
        if index in which:
            terms.append(_composite(sign, rng))
        else:
            low = 2 if operand <= 99 or rng.random() < 0.2 else operand // 10
            terms.append(Term(sign, rng.randint(low, operand)))
    return Plan(tuple(terms), outer)


def _composite(sign: int, rng: Random) -> Term:
    small, other = rng.randint(2, 9), rng.randint(2, 99 if rng.random() < 0.6 else 12)
    if rng.random() < 0.65:
        return Term(sign, *rng.choice(((small, "*", other), (other, "*", small))))
    return Term(sign, small * other, "/", small)


def _question(plan: Plan, rng: Random) -> str:
    if rng.random() < 0.3:
        spoken = _spoken(plan, rng)
        if spoken:
            return spoken
    text = _expression(plan, rng)
    return rng.choice(ASK).replace("{}", text)


def _expression(plan: Plan, rng: Random) -> str:
    if rng.random() < 0.15 and plan.operations <= 3 and (plan.outer is None or len(plan.terms) == 1):
        sign = WORDS
    else:
        pad = "" if rng.random() < 0.2 else " "
        sign = {op: f"{pad}{rng.choice(marks)}{pad}" for op, marks in SYMBOLS.items()}
    text = ""
    for index, term in enumerate(plan.terms):
        if index:
            text += sign["+" if term.sign > 0 else "-"]
        text += str(term.a) if term.op is None else f"{term.a}{sign[term.op]}{term.b}"
    if plan.outer is not None:
        body = f"({text})" if plan.operations > 1 else text
        if plan.outer[0] == "*" and rng.random() < 0.4:
            return f"{plan.outer[1]}{sign['*']}{body}"
        text = f"{body}{sign[plan.outer[0]]}{plan.outer[1]}"
    return text


def _spoken(plan: Plan, rng: Random) -> str | None:
    """Sentences instead of an expression, or None where the plan has no such form."""
    terms = plan.terms
    if plan.operations == 1:
        return _pair(plan, rng)
    if any(term.op is not None for term in terms):
        return None
    start = rng.choice(("Start with {}", "Take {}", "Begin with {}", "Think of {}")).replace("{}", str(terms[0].a))
    moves = [f"{'add' if t.sign > 0 else rng.choice(('subtract', 'take away'))} {t.a}" for t in terms[1:]]
    if plan.outer is not None:
        moves.append(f"{'multiply' if plan.outer[0] == '*' else 'divide'} by {plan.outer[1]}")
    end = rng.choice(("What do you get?", "What is the result?", "What is it now?", "Where do you end up?"))
    moves[-1] = rng.choice(("then ", "and ")) + moves[-1]
    return f"{start}, {', '.join(moves)}. {end}"


def _pair(plan: Plan, rng: Random) -> str | None:
    first = plan.terms[0]
    if plan.outer is not None:
        return None
    if first.op is None:
        a, op, b = first.a, "+" if plan.terms[1].sign > 0 else "-", plan.terms[1].a
    else:
        a, op, b = first.a, first.op, first.b
    forms = {
        "+": (f"Add {a} and {b}.", f"What is the sum of {a} and {b}?", f"Increase {a} by {b}.", f"Add {b} to {a}."),
        "-": (
            f"Subtract {b} from {a}.",
            f"What is the difference between {a} and {b}?",
            f"Take {b} away from {a}.",
            f"How much is {a} less {b}?",
            f"Decrease {a} by {b}.",
        ),
        "*": (f"Multiply {a} by {b}.", f"What is the product of {a} and {b}?", f"What is {a} multiplied by {b}?"),
        "/": (
            f"Divide {a} by {b}.",
            f"How many times does {b} go into {a}?",
            f"What is {a} split into {b} equal parts?",
        ),
    }
    return rng.choice(forms[op])
