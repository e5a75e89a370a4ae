"""What two models ship beside their weights: read from each, and compared before any number.

A bundle whose template, end tokens or sampling defaults are not those of its reference gives other replies with the
same weights. The effect is in the samples, since each model is asked as it is shipped; here it gets its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from edgedistill.checkpoint.tokenizer.files import ends_of_turn
from edgedistill.verify.types import Shipped, ShippedDifference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tokenizers import Tokenizer

    from edgedistill.runtime.batch.request import DrawSettings
    from edgedistill.verify.sampling.replies import Encoded
    from edgedistill.verify.types import Prompt

SETTINGS = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_new_tokens")
"""Sampling settings that a model can state."""

_NAMED = 4
"""Most tokens that a sentence names."""


class _Encodes(Protocol):
    def encode(self, prompt: Prompt, thinking: bool | None) -> Encoded: ...


def read_shipped(
    tokenizer: Tokenizer, template: str | None, end_ids: Sequence[int], generation: Mapping[str, Any]
) -> Shipped:
    """What a model ships. ``generation``: its generation.json, or what its generation_config.json recommends."""

    def texts(ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(tokenizer.id_to_token(index) or f"token {index}" for index in ids)

    # What is no number is refused where it is used.
    settings = {name: value for name, value in stated(generation).items() if isinstance(value, int | float)}
    return Shipped(template, texts(end_ids), texts(ends_of_turn(tokenizer, template)), settings)


def stated(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling settings of a generation.json; ``do_sample: false`` is temperature 0."""
    found = {name: generation[name] for name in SETTINGS if generation.get(name) is not None}
    return found | ({"temperature": 0.0} if generation.get("do_sample") is False else {})


def compare_shipped(
    reference: Shipped | None,
    bundle: Shipped | None,
    settings: tuple[DrawSettings, DrawSettings],
    *,
    replies: tuple[_Encodes, _Encodes] | None = None,
    prompts: Sequence[Prompt] = (),
) -> tuple[ShippedDifference, ...]:
    """Every difference, end tokens first; empty where one of the two is not known.

    Args:
        settings: What the reference's and the bundle's replies are drawn with.
        replies: What encodes prompts for either model: tells whether templates that differ make other prompts.
        prompts: Those that are asked.
    """
    if reference is None or bundle is None:
        return ()
    found = [*_ends(reference, bundle), *_template(reference, bundle, settings[0].thinking, replies, prompts)]
    for name in SETTINGS:
        reference_value, bundle_value = reference.generation.get(name), bundle.generation.get(name)
        if reference_value is None or bundle_value == reference_value:
            continue
        drawn = tuple(getattr(one, name) for one in settings)
        each = "each model was sampled at its own" if drawn[0] != drawn[1] else f"both were sampled at {drawn[0]:g}"
        own = "unset" if bundle_value is None else f"{bundle_value:g}"
        sentence = f"Settings differ: {name} is {reference_value:g} in the reference and {own} in the bundle; {each}."
        found.append(ShippedDifference(name, f"{reference_value:g}", own, sentence))
    return tuple(found)


def _ends(reference: Shipped, bundle: Shipped) -> list[ShippedDifference]:
    missing = bundle.missing_ends(reference)
    further = [token for token in bundle.end_tokens if token not in reference.end_tokens]
    if not missing and not further:
        return []
    parts = []
    if missing:
        parts.append(
            f"The bundle lacks the end token {_quoted(missing)}: a reply that ends with it goes on up to the limit of "
            "tokens."
        )
    if further:
        parts.append(f"The bundle's replies also end at {_quoted(further)}, the reference's do not.")
    return [
        ShippedDifference("end tokens", " ".join(reference.end_tokens), " ".join(bundle.end_tokens), " ".join(parts))
    ]


def _template(
    reference: Shipped,
    bundle: Shipped,
    thinking: bool | None,
    replies: tuple[_Encodes, _Encodes] | None,
    prompts: Sequence[Prompt],
) -> list[ShippedDifference]:
    if reference.template == bundle.template:
        return []
    sizes = ["none" if one.template is None else f"{len(one.template)} characters" for one in (reference, bundle)]
    told = f"The chat templates differ (reference {sizes[0]}, bundle {sizes[1]})"
    if replies is not None:
        for prompt in prompts:
            reference_tokens, bundle_tokens = (len(one.encode(prompt, thinking).ids) for one in replies)
            if replies[0].encode(prompt, thinking).ids != replies[1].encode(prompt, thinking).ids:
                told += (
                    f": the prompt `{prompt.id}` comes to {reference_tokens} tokens for the reference and "
                    f"{bundle_tokens} for the bundle"
                )
                break
        else:
            told += ", and make the same tokens of every prompt that was asked"
    return [ShippedDifference("chat template", sizes[0], sizes[1], f"{told}.")]


def _quoted(tokens: Sequence[str]) -> str:
    named = ", ".join(f"`{token}`" for token in tokens[:_NAMED])
    return named if len(tokens) <= _NAMED else f"{named} and {len(tokens) - _NAMED} more"
