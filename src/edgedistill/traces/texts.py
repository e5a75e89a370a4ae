"""The built-in texts: what a quick calibration runs a model over, and what a thorough one adds to its own replies."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from edgedistill.errors import EdgedistillError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUILT_IN = "built-in texts"


def built_in_texts(render: Callable[[list[dict[str, Any]]], str]) -> Iterator[str]:
    """The texts of ``texts.toml`` in order.

    Args:
        render: Messages to text, by the model's chat template. Where it refuses a conversation (some know no system
            message), the contents follow one another without a template.
    """
    table = tomllib.loads(files(__package__).joinpath("texts.toml").read_text(encoding="utf-8"))
    for entry in table["text"]:
        if "text" in entry:
            yield entry["text"].strip()
            continue
        try:
            yield render(entry["messages"])
        except EdgedistillError:
            yield "\n\n".join(message["content"] for message in entry["messages"])
