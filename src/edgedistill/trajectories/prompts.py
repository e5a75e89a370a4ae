"""Prompts of the further passes: Jinja files, checked before anything is decoded.

A prompt may use ``question`` (the text of the last user message), ``trajectories`` (each with ``number``, from 1,
``reasoning``, cut to its budget, ``answer``) and ``majority`` (``answer``, ``votes``, ``total``; None where nobody
voted), and must use the first two.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.errors import TemplateError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REQUIRED = ("question", "trajectories")
FIELDS = (*REQUIRED, "majority")
MAX_BYTES = 1_000_000
_EXAMPLE = {
    "question": "What is 1 + 1?",
    "trajectories": [{"number": 1, "reasoning": "1 + 1 = 2.", "answer": "2"}],
    "majority": {"answer": "2", "votes": 1, "total": 1},
}
_HINT = "The shipped one is edgedistill/trajectories/templates/deliberate.jinja."


class PassPrompt:
    """A prompt, parsed and tried."""

    def __init__(self, source: str, name: str) -> None:
        """Check ``source``; ``name`` is what messages call it.

        Raises:
            TemplateError: It is malformed, lacks a required field, uses one that does not exist, or does not render.
        """
        from jinja2 import StrictUndefined, TemplateSyntaxError, meta
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self._name = name
        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        try:
            used = meta.find_undeclared_variables(environment.parse(source))
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise TemplateError(f"{name} line {error.lineno}: {error.message}.", hint=_HINT) from error
        except RecursionError as error:
            raise TemplateError(f"{name} is nested too deeply.", hint=_HINT) from error
        for field in sorted(used - set(FIELDS)):
            near = difflib.get_close_matches(field, FIELDS, n=1)
            guess = f"Did you mean {near[0]}?" if near else _HINT
            raise TemplateError(f"{name} uses the field {field!r}; there are {', '.join(FIELDS)}.", hint=guess)
        for field in REQUIRED:
            if field not in used:
                raise TemplateError(
                    f"{name} does not use the field {field!r}; expected both of {' and '.join(REQUIRED)}.",
                    hint=f"Add {{{{ {field} }}}} to it." if field == "question" else _HINT,
                )
        self.render(**_EXAMPLE)  # type: ignore[arg-type]
        try:
            self.render(**{**_EXAMPLE, "majority": None})  # type: ignore[arg-type]
        except TemplateError as error:
            raise TemplateError(
                f"{name} cannot be rendered where no attempt has an answer to vote on, and majority is None.",
                hint="Write around it: {% if majority %}...{% endif %}.",
            ) from error

    def render(
        self, *, question: str, trajectories: Sequence[Mapping[str, Any]], majority: Mapping[str, Any] | None
    ) -> str:
        """The text of the pass's question; raises TemplateError for a field of an entry that does not exist."""
        try:
            text = self._template.render(question=question, trajectories=list(trajectories), majority=majority)
        except Exception as error:  # whatever an expression of the user's file raises
            raise TemplateError(f"{self._name} cannot be rendered: {error}.", hint=_HINT) from error
        return text.strip()


def load_prompt(path: Path | None, shipped: str) -> PassPrompt:
    """The user's prompt at ``path``, or the shipped one of that name. Raises TemplateError."""
    if path is None:
        return PassPrompt((Path(__file__).parent / "templates" / shipped).read_text(encoding="utf-8"), shipped)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TemplateError(f"{path} has more than {MAX_BYTES} bytes; expected a short prompt.", hint=_HINT)
        source = path.read_text(encoding="utf-8")
    except OSError as error:
        raise TemplateError(f"{path} cannot be read: {error.strerror}.", hint=_HINT) from error
    except UnicodeDecodeError as error:
        raise TemplateError(f"{path} is no UTF-8 text.", hint=_HINT) from error
    return PassPrompt(source, path.name)
