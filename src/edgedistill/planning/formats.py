"""Lists of weight formats as users write them, with the nearest known name for a misspelt one."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from edgedistill.errors import UsageError
from edgedistill.quantize.plan import parse_format
from edgedistill.quantize.spec import BLOCK_SIZES, STORED_BITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.quantize.spec import WeightFormat


def read_formats(formats: str | Sequence[str]) -> list[tuple[str, WeightFormat]]:
    """(name, format) of each part of ``int4-b32,int8-b64``, or of a sequence, in order, doubles left out.

    Raises:
        UsageError: No format at all, or one that does not exist, with the nearest that does.
    """
    texts = [formats] if isinstance(formats, str) else formats
    names = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not names:
        raise UsageError("The list of formats is empty.", hint="For example: int4-b32,int8-b64,fp32.")
    return [(name, _read(name)) for name in dict.fromkeys(names)]


def _read(name: str) -> WeightFormat:
    try:
        return parse_format(name)
    except UsageError as error:
        near = difflib.get_close_matches(name.lower(), _candidates(name), n=1, cutoff=0.4)
        if not near:
            raise
        raise UsageError(error.message, hint=f"Did you mean {near[0]}?") from error


def _candidates(name: str) -> list[str]:
    """Names like the misspelt one: its parts after the first two are kept where the rest makes a format of them."""
    heads = ["fp32", "w8a8", *(f"int{bits}" for bits in STORED_BITS)]
    heads += [f"int{bits}-b{block}" for bits in STORED_BITS for block in BLOCK_SIZES]
    rest = "-".join(name.lower().split("-")[2:])
    found = list(heads)
    for head in heads if rest else ():
        try:
            parse_format(f"{head}-{rest}")
        except UsageError:
            continue
        found.append(f"{head}-{rest}")
    return found
