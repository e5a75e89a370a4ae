"""Small stories with names and quantities, built from events so that the words and the numbers vary independently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .plan import Plan, Term, band_of, in_range, reply_text
from .problem import Problem, phrases

if TYPE_CHECKING:
    from random import Random

NAMES = phrases("names")
ITEMS = phrases("items")
PACKS = ("bags", "boxes", "packs", "baskets", "jars")
PLACES = ("shelf", "table", "box", "basket", "shop", "drawer", "garden", "room")
THINGS = phrases("things")


def make(band: str, rng: Random) -> Problem:
    """Return a story of the band."""
    wanted = {"one-step": 1, "two-step": 2, "three-step": 3, "stretch": 4, "hard": rng.choice((5, 6))}[band]
    while True:
        kind = rng.random()
        if band not in ("hard", "stretch") and kind < 0.2:
            drawn = _price(wanted, rng)
        elif band not in ("hard", "stretch", "one-step") and kind < 0.3:
            drawn = _two_people(wanted, rng)
        elif kind < 0.4 and wanted == 1:
            drawn = _rate(rng)
        else:
            drawn = _story(wanted, rng, 199 if band == "hard" else 99)
        if drawn is None:
            continue
        plan, question, sentences = drawn
        if plan.operations != wanted:
            continue
        if (band == "hard" and plan.is_sound(2999)) or (band != "hard" and in_range(plan)):
            break
    return Problem(
        family="word",
        band=band if wanted > 3 else band_of(wanted),
        key=plan.key,
        question=question,
        reasoning="\n".join(plan.solve(rng, notes=rng.random() < 0.5)),
        reply=reply_text(plan.value, sentences, rng),
        answer=str(plan.value),
    )


Drawn = tuple[Plan, str, tuple[str, ...]] | None


def _amount(rng: Random, largest: int) -> int:
    return rng.randint(2, 20) if rng.random() < 0.35 else rng.randint(5, largest)


def _story(wanted: int, rng: Random, largest: int) -> Drawn:
    name, friend = rng.sample(NAMES, 2)
    item = rng.choice(ITEMS)
    terms, sentences = [], []
    share = wanted >= 2 and rng.random() < 0.2
    budget = wanted - share
    if budget >= 1 and rng.random() < (0.5 if wanted == 1 else 0.25):
        pack, a, b = rng.choice(PACKS), rng.randint(2, 9), rng.randint(2, 30)
        terms.append(Term(1, a, "*", b, label=pack.capitalize()))
        sentences.append(
            rng.choice((f"{name} has {a} {pack} with {b} {item} each.", f"{name} has {a} {pack} of {b} {item}."))
        )
        budget -= 1
    else:
        start = _amount(rng, largest)
        terms.append(Term(1, start))
        sentences.append(
            rng.choice(
                (
                    f"{name} has {start} {item}.",
                    f"{name} starts with {start} {item}.",
                    f"There are {start} {item} on the {rng.choice(PLACES)} of {name}.",
                    f"{name} collected {start} {item}.",
                )
            )
        )
    while budget > 0:
        if budget >= 2 and rng.random() < 0.4:
            term, sentence = _groups(name, item, rng)
            budget -= 2
        else:
            term, sentence = _event(name, friend, item, _amount(rng, largest), rng)
            budget -= 1
        terms.append(term)
        sentences.append(sentence)
    text = " ".join(sentences)
    if share:
        people = rng.randint(2, 9)
        text += rng.choice(
            (
                f" {name} shares all of them equally among {people} friends. How many {item} does each friend get?",
                f" They are put equally into {people} bags. How many {item} are in each bag?",
                f" All {item} are split equally between {people} children. How many does each child get?",
            )
        )
        return Plan(tuple(terms), ("/", people)), text, (f"Each gets {{}} {item}.", "Each gets {}.")
    text += " " + rng.choice(
        (
            f"How many {item} does {name} have now?",
            f"How many {item} does {name} have in the end?",
            f"How many {item} are there now?",
            f"What is the number of {item} now?",
            "How many is that in total?" if all(t.sign > 0 for t in terms) else "How many are left?",
        )
    )
    return Plan(tuple(terms)), text, (f"{name} has {{}} {item}.", f"There are {{}} {item}.")


def _event(name: str, friend: str, item: str, n: int, rng: Random) -> tuple[Term, str]:
    who = name if rng.random() < 0.4 else "Then " + name if rng.random() < 0.5 else "Later " + name
    if rng.random() < 0.55:
        verb = rng.choice(
            (
                f"buys {n} more",
                f"finds {n} more",
                f"gets {n} more from {friend}",
                f"wins {n}",
                f"adds {n}",
                f"picks up {n}",
            )
        )
        if rng.random() < 0.25:
            return Term(1, n), f"{friend} gives {name} {n} {item}."
        return Term(1, n), f"{who} {verb}{'' if 'from' in verb or rng.random() < 0.5 else ' ' + item}."
    verb = rng.choice((f"loses {n}", f"sells {n}", f"uses {n}", f"gives away {n}", f"gives {friend} {n}", f"drops {n}"))
    if rng.random() < 0.2:
        return Term(-1, n), f"{friend} takes {n} of the {item}."
    return Term(-1, n), f"{who} {verb}{'' if rng.random() < 0.5 else ' ' + item}."


def _groups(name: str, item: str, rng: Random) -> tuple[Term, str]:
    a, b, pack = rng.randint(2, 9), rng.randint(2, 20), rng.choice(PACKS)
    if rng.random() < 0.6:
        verb = rng.choice(("buys", "finds", "gets", "brings"))
        text = rng.choice(
            (f"{name} {verb} {a} {pack} of {b} {item}.", f"{name} {verb} {a} {pack} with {b} {item} each.")
        )
        return Term(1, a, "*", b, label=pack.capitalize()), text
    text = rng.choice(
        (f"{name} gives {b} {item} to each of {a} friends.", f"{name} sells {a} {pack} with {b} {item} each.")
    )
    return Term(-1, a, "*", b, label="Away"), text


def _price(wanted: int, rng: Random) -> Drawn:
    name = rng.choice(NAMES)
    first, second = rng.sample(THINGS, 2)
    unit = rng.choice(("euros", "dollars", "coins", "pounds"))
    p, q, a, b = rng.randint(2, 30), rng.randint(2, 60), rng.randint(2, 9), rng.randint(2, 60)
    total_forms = (f"It costs {{}} {unit}.", f"{name} pays {{}} {unit}.")
    left_forms = (f"{name} has {{}} {unit} left.", f"{{}} {unit} are left.")
    each = rng.choice(
        (f"A {first} costs {p} {unit}.", f"One {first} costs {p} {unit}.", f"The price of a {first} is {p} {unit}.")
    )
    pay = rng.choice(("How much does {n} pay?", "What does it cost?", "How much is that in total?")).replace(
        "{n}", name
    )
    if wanted == 1:
        if rng.random() < 0.5:
            return Plan((Term(1, a, "*", p),)), f"{each} {name} buys {a} {first}s. {pay}", total_forms
        return (
            Plan((Term(1, p), Term(1, q))),
            f"A {first} costs {p} {unit} and a {second} {q}. How much are both?",
            total_forms,
        )
    if wanted == 2:
        if rng.random() < 0.5:
            text = f"{each} {name} buys {a} {first}s and a {second} for {q} {unit}. {pay}"
            return Plan((Term(1, a, "*", p, label=f"{first}s".capitalize()), Term(1, q))), text, total_forms
        money = rng.randint(a * p, max(99, a * p))
        text = f"{name} has {money} {unit} and buys {a} {first}s for {p} {unit} each. How much is left?"
        return Plan((Term(1, money), Term(-1, a, "*", p, label="Cost"))), text, left_forms
    if b < 10:
        costs = f"A {first} costs {p} {unit} and a {second} costs {q} {unit}."
        text = f"{costs} {name} buys {a} {first}s and {b} {second}s. {pay}"
        terms = (
            Term(1, a, "*", p, label=f"{first}s".capitalize()),
            Term(1, b, "*", q, label=f"{second}s".capitalize()),
        )
        return Plan(terms), text, total_forms
    money = rng.randint(50, 99)
    text = f"{name} has {money} {unit}, gets {b} more, and buys {a} {first}s for {p} {unit} each. How much is left?"
    return Plan((Term(1, money), Term(1, b), Term(-1, a, "*", p, label="Cost"))), text, left_forms


def _two_people(wanted: int, rng: Random) -> Drawn:
    name, friend = rng.sample(NAMES, 2)
    item = rng.choice(ITEMS)
    a, b = _amount(rng, 99), _amount(rng, 60)
    both = ("Together they have {}.", f"They have {{}} {item} together.")
    ask = rng.choice(
        (f"How many {item} do they have together?", f"How many {item} do {name} and {friend} have in total?")
    )
    if wanted == 2:
        if rng.random() < 0.6:
            more = rng.random() < 0.5
            text = f"{name} has {a} {item}. {friend} has {b} {'more' if more else 'fewer'} than {name}. {ask}"
            return Plan((Term(1, a), Term(1, a), Term(1 if more else -1, b))), text, both
        times = rng.randint(2, 5)
        text = f"{name} has {a} {item}. {friend} has {times} times as many. {ask}"
        return Plan((Term(1, times, "*", a, label=friend), Term(1, a))), text, both
    x, y, c, d = rng.randint(2, 9), rng.randint(2, 20), rng.randint(2, 9), rng.randint(2, 20)
    pack = rng.choice(PACKS)
    text = f"{name} has {x} {pack} with {y} {item} and {friend} has {c} {pack} with {d} {item}. {ask}"
    return Plan((Term(1, x, "*", y, label=name), Term(1, c, "*", d, label=friend))), text, both


def _rate(rng: Random) -> Drawn:
    name, a, b = rng.choice(NAMES), rng.randint(2, 9), rng.randint(3, 60)
    text, unit = rng.choice(
        (
            (f"{name} reads {b} pages a day. How many pages are read in {a} days?", "pages"),
            (f"A car drives {b} km in an hour. How far does it drive in {a} hours?", "km"),
            (f"{name} runs {b} minutes every day. How many minutes is that in {a} days?", "minutes"),
            (f"There are {a} rows with {b} chairs each. How many chairs are there?", "chairs"),
            (f"{name} saves {b} euros a week. How much is saved after {a} weeks?", "euros"),
        )
    )
    return Plan((Term(1, a, "*", b),)), text, (f"That is {{}} {unit}.",)
