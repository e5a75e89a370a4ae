"""A tokenizer from the bytes of a tokenizer.json, tried before it is trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.errors import CheckpointError
from edgedistill.safe_text import visible

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edgedistill.errors import EdgedistillError

MAX_BYTES = 256 << 20
_PROBE = "a 1\n\x01é中\U0001f642<|x|>"
"""Letters, digits, space, a control character, several bytes a character: a tokenizer whose ``unk_token`` is not in its
vocabulary fails on some of them."""


def load_tokenizer(
    tokenizer_json: bytes,
    *,
    error: type[EdgedistillError] = CheckpointError,
    hint: str = "Download it again, or update the tokenizers package.",
) -> Tokenizer:
    """The tokenizer of a tokenizer.json; raises ``error`` if it is none, or cannot encode and decode."""
    from tokenizers import Tokenizer

    if len(tokenizer_json) > MAX_BYTES:
        raise error(f"tokenizer.json has more than {MAX_BYTES >> 20} MiB, the most expected.", hint=hint)
    try:
        tokenizer = Tokenizer.from_buffer(tokenizer_json)
        tokenizer.decode(tokenizer.encode(_PROBE, add_special_tokens=False).ids)
    except BaseException as problem:  # the Rust side raises a bare Exception, and for a panic a BaseException
        if isinstance(problem, KeyboardInterrupt | SystemExit | GeneratorExit | MemoryError):
            raise
        raise error(f"tokenizer.json cannot be read ({plain_error(problem)}).", hint=hint) from problem
    return tokenizer


def plain_error(error: BaseException) -> str:
    """The error's text in a line, with control characters, which may come from a damaged file, spelled out."""
    return visible(str(error), line=True)
