"""Tools in the prompts of one model: given to its chat template, or described in the system's message."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

from edgedistill.catalog.tool_formats import BARE, HERMES, find_formats
from edgedistill.errors import TemplateError
from edgedistill.runtime.tools.types import Tool

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from edgedistill.catalog.tool_formats import ToolFormat
    from edgedistill.runtime.text.chat_template import Template

_PROBE = Tool("probe_of_tools", "Probe.", {"type": "object", "properties": {"a": {"type": "string"}}})
_OFFER = """\
You may call functions to answer. These are the functions, as JSON:
<tools>
{tools}
</tools>
To call one, write its name and arguments as JSON between these tags, and nothing after them:
<tool_call>
{{"name": "<name>", "arguments": {{<arguments>}}}}
</tool_call>
The result is given to you between <tool_response> tags. Call a function only if you need it; otherwise answer."""


class ToolControl:
    """What one model's template and tokens say about tools.

    Args:
        template: Its chat template.
        tokens: Special and added tokens of its tokenizer.
    """

    def __init__(self, template: Template, tokens: Collection[str]) -> None:
        self._template = template
        self._tokens = tokens

    @functools.cached_property
    def supported(self) -> bool:
        """Whether the template shows tools that it is given."""
        try:
            text = self._template.render([{"role": "user", "content": "Hello"}], tools=[_PROBE.to_dict()])
        except TemplateError:
            return False
        return _PROBE.name in text

    @functools.cached_property
    def formats(self) -> tuple[ToolFormat, ...]:
        """How calls may be written; the first is what the model is asked for."""
        found = find_formats(self._template.source, self._tokens)
        if self.supported:
            return found or (HERMES, BARE)
        return (HERMES, *(one for one in found if one.open != HERMES.open))

    def offer(
        self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Messages and template variables that offer ``tools``."""
        found = [dict(message) for message in messages]
        if not tools:
            return found, {}
        if self.supported:
            return found, {"tools": [tool.to_dict() for tool in tools]}
        listed = "\n".join(json.dumps(tool.to_dict()["function"], ensure_ascii=False) for tool in tools)
        text = _OFFER.format(tools=listed)
        if found and found[0].get("role") == "system":
            found[0]["content"] = f"{found[0].get('content') or ''}\n\n{text}"
            return found, {}
        return [{"role": "system", "content": text}, *found], {}

    def note(self, tools: Sequence[Tool]) -> str | None:
        """A sentence where the template knows no tools."""
        if not tools or self.supported:
            return None
        return "The chat template knows no tools: they are described in the system prompt."
