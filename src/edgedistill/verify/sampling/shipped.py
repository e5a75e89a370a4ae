"""Compares what two models ship beside their weights: chat template, end tokens, sampling defaults.

If these differ between a bundle and its reference, replies differ even with the same weights. Samples include that
effect, since each model is used with its own; this module reports the cause.
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
"""Sampling settings that a model can have of its own."""

_NAMED = 4
"""Largest number of tokens that a sentence names."""


class _Encodes(Protocol):
    def encode(self, prompt: Prompt, thinking: bool | None) -> Encoded: ...


def read_shipped(
    tokenizer: Tokenizer, template: str | None, end_ids: Sequence[int], generation: Mapping[str, Any]
) -> Shipped:
    """Collect a model's template, end tokens and sampling defaults.

    Args:
        tokenizer: The model's.
        template: Its chat template, if it has one.
        end_ids: Token ids that end a reply.
        generation: Its generation.json, or what its generation_config.json recommends.
    """

    def texts(ids: Sequence[int]) -> tuple[str, ...]:
        return tuple(tokenizer.id_to_token(index) or f"token {index}" for index in ids)

    # Values that are not numbers are refused where they are used.
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
    """All differences, end tokens first; empty if one of the two is not known.

    Args:
        reference, bundle: What each model ships.
        settings: Sampling settings of the reference's and of the bundle's replies.
        replies: Encoders of prompts for both models, to check whether different templates make different prompts.
        prompts: Of the run.
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
    sentence = f"The chat templates differ (reference {sizes[0]}, bundle {sizes[1]})"
    if replies is not None:
        for prompt in prompts:
            reference_tokens, bundle_tokens = (len(one.encode(prompt, thinking).ids) for one in replies)
            if replies[0].encode(prompt, thinking).ids != replies[1].encode(prompt, thinking).ids:
                sentence += (
                    f": the prompt `{prompt.id}` has {reference_tokens} tokens for the reference and "
                    f"{bundle_tokens} for the bundle"
                )
                break
        else:
            sentence += ", but every prompt of this run has the same tokens with both"
    return [ShippedDifference("chat template", sizes[0], sizes[1], f"{sentence}.")]


def _quoted(tokens: Sequence[str]) -> str:
    named = ", ".join(f"`{token}`" for token in tokens[:_NAMED])
    return named if len(tokens) <= _NAMED else f"{named} and {len(tokens) - _NAMED} more"
