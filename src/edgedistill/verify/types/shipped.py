"""What a model ships beside its weights, and where two models differ in it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Shipped:
    """What a model ships beside its weights that changes replies.

    Attributes:
        template: Source of the chat template; None without one.
        end_tokens: Texts of the tokens that end a reply.
        turn_ends: Texts of the special tokens that the template closes turns with.
        generation: Sampling settings that the model states, by their names in ``DrawSettings``.
    """

    template: str | None
    end_tokens: tuple[str, ...]
    turn_ends: tuple[str, ...] = ()
    generation: dict[str, float] = field(default_factory=dict)

    def missing_ends(self, other: Shipped | None = None) -> tuple[str, ...]:
        """Tokens that close the turns of this model's template, or end the replies of ``other``, and do not end its
        own."""
        wanted = (*self.turn_ends, *(() if other is None else other.end_tokens))
        return tuple(dict.fromkeys(token for token in wanted if token not in self.end_tokens))


@dataclass(frozen=True, slots=True)
class ShippedDifference:
    """One difference: ``what`` is end tokens, chat template or the name of a setting; ``sentence`` says it."""

    what: str
    reference: str
    bundle: str
    sentence: str
