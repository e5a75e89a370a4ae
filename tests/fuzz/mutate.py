"""Mutations of documents: of their bytes, and of the values in them where they are JSON."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**32, 2**53, 2**63, 2**64, -(2**63) - 1, 10**400, 32_000_000,
    0.5, -0.0, 1e308, -1e308, 5e-324, float("inf"), float("nan"),
    "", " ", "a", "\0", "\x1b]52;c;QQ==\x07", "\u202e", "\ud800", "\xe9" * 50, "x" * 5000, "../../etc/passwd",
    "/etc/passwd", "CON", "1e999", "-1", "[/x]", "%s%n", "{{7*7}}", [], {}, [None], [[]], {"": None}, [1] * 500,
)  # fmt: skip
_TEXTS = (b"null", b"[]", b"{}", b"NaN", b"-Infinity", b"1e999", b"9" * 60, b'"\\ud800"', b"\0", b"\xff\xfe", b"\xc3")


def mutated(seed: bytes, random: Random) -> bytes:
    """``seed`` with one to four changes."""
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        changed = _value_mutation(seed, random) if random.random() < 0.7 else None
        seed = _byte_mutation(seed, random) if changed is None else changed
    return seed


def _value_mutation(data: bytes, random: Random) -> bytes | None:
    """One value of a JSON document, or of one line of JSONL, changed; None where it is no JSON."""
    lines = data.split(b"\n") if data.count(b"\n") > 1 else [data]
    at = random.randrange(len(lines))
    try:
        root = json.loads(lines[at])
    except (ValueError, RecursionError):
        try:
            at, lines, root = 0, [data], json.loads(data)
        except (ValueError, RecursionError):
            return None
    spots = list(_spots(root))
    if not spots:
        return None
    parent, key = random.choice(spots)
    choice = random.random()
    if choice < 0.6:
        parent[key] = copy.deepcopy(random.choice(NASTY))
    elif choice < 0.75:
        del parent[key]
    elif choice < 0.85:
        other, name = random.choice(spots)
        parent[key] = copy.deepcopy(other[name])
    elif choice < 0.9:
        nested: Any = parent[key]
        for _ in range(random.choice((3, 40, 400))):
            nested = [nested]
        parent[key] = nested
    elif isinstance(parent, dict):
        parent[str(random.choice(NASTY[20:]))] = parent.pop(key)
    else:
        parent.extend(parent[:1] * random.choice((1, 10, 1000)))
    try:
        lines[at] = json.dumps(root).encode()
    except (ValueError, RecursionError):
        return None
    return b"\n".join(lines)


def _spots(value: Any) -> Any:
    stack = [value]
    while stack:
        node = stack.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, entry in items:
            yield node, key
            stack.append(entry)


def _byte_mutation(data: bytes, random: Random) -> bytes:
    start = random.randrange(len(data) + 1)
    stop = min(len(data), start + random.choice((1, 1, 2, 8, 64)))
    choice = random.randrange(6)
    if choice == 0:
        return data[:start] + bytes(random.randrange(256) for _ in range(stop - start)) + data[stop:]
    if choice == 1:
        return data[:start] + data[stop:]
    if choice == 2:
        return data[:start] + data[start:stop] * random.choice((2, 3, 200)) + data[stop:]
    if choice == 3:
        return data[:start] + random.choice(_TEXTS) + data[stop:]
    if choice == 4:
        return data[:start]
    if start == len(data):
        return data + b"\0"
    return data[:start] + bytes([data[start] ^ 1 << random.randrange(8)]) + data[start + 1 :]
