"""The body of a request: JSON of a limited size, read field by field with the type that each has to have.

The rule for what is not supported: a field that would change the answer is refused; one that only describes the
request (``user``, ``metadata``) is taken and not used; one that this server does not know is ignored, and the response
names it under ``edgedistill.ignored``.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NoReturn

from edgedistill.server.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from starlette.requests import Request

BODY_SECONDS = 30.0
"""Longest time in which a body has to arrive."""

DESCRIBING = (
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
)  # fmt: skip
"""Fields about the request: what comes of it does not depend on them."""


async def read_fields(request: Request, limit: int) -> Fields:
    """The body of ``request``, of at most ``limit`` bytes; raises ApiError (400, 408, 413)."""
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > limit:
                    raise _too_large(limit)
    except TimeoutError as error:
        raise ApiError(408, f"The body did not arrive within {BODY_SECONDS:g} s.", code="timeout") from error
    return Fields(_json(bytes(body)))


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The body is larger than the {limit} bytes that this server takes.", code="body_too_large")


def _json(body: bytes) -> dict[str, Any]:
    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    try:
        found = json.loads(body.decode("utf-8"), parse_constant=refuse)
        if b"\\ud" in body or b"\\uD" in body:
            json.dumps(found, ensure_ascii=False).encode()  # halves of surrogate pairs are no text
    except (ValueError, RecursionError) as error:
        said = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ApiError(400, f"The body is not valid JSON: {said}.", code="invalid_json") from error
    if not isinstance(found, dict):
        raise ApiError(400, f"The body is {_kind(found)}; expected a JSON object.", code="invalid_json")
    return found


class Fields:
    """The fields of a request; null is the same as absent."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = body
        self._read = set(DESCRIBING)

    def take(self, name: str) -> Any:
        """The value as it came; None where there is none."""
        self._read.add(name)
        return self._body.get(name)

    def number(self, name: str, low: float, high: float) -> float | None:
        """A number from ``low`` to ``high``."""
        value = self.take(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            self.refuse(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def integer(self, name: str, low: int, high: int) -> int | None:
        """A whole number from ``low`` to ``high``."""
        value = self.take(name)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high):
            self.refuse(name, f"a whole number from {low} to {high}")
        return None if value is None else int(value)

    def flag(self, name: str) -> bool | None:
        """True or false."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "true or false")
        return value

    def text(self, name: str, choices: Collection[str] = ()) -> str | None:
        """A string, one of ``choices`` if there are any."""
        value = self.take(name)
        if value is not None and (not isinstance(value, str) or (choices and value not in choices)):
            self.refuse(name, f"one of {', '.join(choices)}" if choices else "a string")
        return value

    def object(self, name: str) -> dict[str, Any] | None:
        """A JSON object."""
        value = self.take(name)
        if value is not None and not isinstance(value, dict):
            self.refuse(name, "an object")
        return value

    def unsupported(self, checks: Mapping[str, Callable[[Any], bool]], why: str) -> None:
        """Refuse fields whose value asks for more than nothing: ``checks`` says which values do not."""
        for name, harmless in checks.items():
            value = self.take(name)
            if value is not None and not harmless(value):
                raise ApiError(400, f"`{name}` is not supported: {why}.", param=name, code="unsupported_parameter")

    def refuse(self, name: str, expected: str) -> NoReturn:
        """Raise the error for a value of the wrong type or out of range."""
        value = self._body.get(name)
        shown = _kind(value) if isinstance(value, dict | list) else json.dumps(value, ensure_ascii=False)[:80]
        raise ApiError(400, f"`{name}` is {shown}; expected {expected}.", param=name, code="invalid_value")

    def rest(self) -> dict[str, Any]:
        """Fields that nobody has asked for, with their values."""
        return {name: value for name, value in self._body.items() if name not in self._read}

    def ignored(self) -> list[str]:
        """Their names."""
        return [name[:80] for name in self.rest()][:32]


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
