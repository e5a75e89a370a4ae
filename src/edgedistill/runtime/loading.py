"""What a model takes from its bundle beside the session: tokenizer, chat template, and whether the memory suffices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.bundle.bundle import TOKENIZER, WEIGHTS
from edgedistill.bundle.opening_memory import in_planes, is_supplied, opening_bytes
from edgedistill.catalog.reasoning import find_grammar, with_tags
from edgedistill.checkpoint.tokenizer.load import load_tokenizer as from_json
from edgedistill.errors import BudgetError, BundleError, UsageError
from edgedistill.runtime.packed_cache import is_kept
from edgedistill.runtime.session import give_back_memory
from edgedistill.runtime.text.chat_template import ChatTemplate, PassThrough
from edgedistill.system.cgroup import available_memory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

    from edgedistill.bundle.bundle import Bundle
    from edgedistill.catalog.reasoning import ReasoningGrammar
    from edgedistill.runtime.text.chat_template import Template


_WHILE_PACKING = 0.6
"""Most private memory for a moment, in weights files, of opening from the cache (.26 to .6 seen, 0.5B to 4B)."""


def require_memory(bundle: Bundle) -> None:
    """Refuse to start what would push the machine into swapping: the weights are copied into memory when they load.
    Where packed weights are kept in the cache they are mapped, and only what packs them to look them up is copied.

    Raises:
        BudgetError: Less memory is available than the weights alone take, or than opening takes at its peak.
    """
    manifest, name, available = bundle.manifest, bundle.path.name, available_memory()
    kept, opening = int(manifest.predicted.get("weights_private", 0)), opening_bytes(manifest)
    if max(kept, opening) > available and is_kept(bundle):
        kept, opening = int(_WHILE_PACKING * bundle.file(WEIGHTS).stat().st_size), 0
    if kept > available:
        raise BudgetError(
            f"The weights of {name} take {kept / 1e9:.2f} GB of memory; {available / 1e9:.2f} GB are available.",
            hint="Close other programs, or export with a smaller --format such as int4-b128.",
        )
    if opening > available:
        better = "" if is_supplied(manifest) else "export it again with this version, which opens it in less, "
        widened, smaller = "scales", "larger blocks, such as --format int4-b128"
        if any(in_planes(weight.format) for weight in manifest.weights):
            widened, smaller = "codes of 3, 5 or 6 bits", "--format int4 or int8"
        raise BudgetError(
            f"Opening {name} takes {opening / 1e9:.2f} GB of memory for a moment, in which its {widened} are widened; "
            f"{available / 1e9:.2f} GB are available.",
            hint=f"Close other programs, {better}or export with {smaller}.",
        )


def load_tokenizer(bundle: Bundle) -> Tokenizer:
    """The bundle's tokenizer; raises BundleError."""
    tokenizer = from_json(bundle.read(TOKENIZER), error=BundleError, hint="Export the bundle again.")
    # Settings for training batches that a tokenizer.json may carry; a prompt is neither cut nor padded.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    give_back_memory()  # what reading took: else it would lie beside the weights while they are packed, at the peak
    return tokenizer


def load_grammar(bundle: Bundle, tokenizer: Tokenizer, tags: Sequence[str] | None = None) -> ReasoningGrammar:
    """The marks of a bundle's reasoning; one made by an earlier version does not say them, and they are looked for.

    Args:
        bundle, tokenizer: The bundle and its tokenizer.
        tags: The texts that open and close reasoning, instead.

    Raises:
        UsageError: ``tags`` are not two different texts.
    """
    found = bundle.manifest.reasoning
    if found is None:
        tokens = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        found = find_grammar(bundle.chat_template, tokens, str(bundle.manifest.source.get("name", "")))
    try:
        return found if tags is None else with_tags(found, tags)
    except ValueError as error:
        raise UsageError(f"{error}.", hint="Give two texts, as in: --reasoning-tags '<think>' '</think>'") from error


def load_template(bundle: Bundle) -> Template:
    """The bundle's chat template; a ``PassThrough`` where it has none."""
    source = bundle.chat_template
    if source is None:
        return PassThrough()
    special: dict[str, str] = {}
    for name, value in bundle.tokenizer_config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            special[name] = text
    return ChatTemplate(source, special_tokens=special)
