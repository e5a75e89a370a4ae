"""Runs a function that was called, with the rights of this process, and says what came of it in text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edgedistill.runtime.tools.types import parsed_arguments

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.runtime.tools.types import Tool, ToolCall


def run_call(tools: Sequence[Tool], call: ToolCall) -> tuple[str, bool]:
    """The result of ``call`` as text for the model, and whether it is one and no error.

    A result that is no text is written as JSON. Whatever a function raises (``KeyboardInterrupt`` aside) becomes a text
    that says so: the model may try again.
    """
    tool = next((one for one in tools if one.name == call.name), None)
    if tool is None or tool.function is None:
        return f"Error: there is no tool {call.name}.", False
    try:
        arguments = parsed_arguments(call.arguments)
    except ValueError as error:
        return f"Error: the arguments are not a JSON object: {error}.", False
    properties = tool.parameters.get("properties") or {}
    required = tool.parameters.get("required") or ()
    unknown = [
        key for key in arguments if key not in properties and tool.parameters.get("additionalProperties") is None
    ]
    lacking = [key for key in required if key not in arguments]
    if unknown or lacking:
        what = f"there is no parameter {unknown[0]}" if unknown else f"the parameter {lacking[0]} is missing"
        return f"Error: {what}; expected {', '.join(properties) or 'none'}.", False
    try:
        result = tool.function(**arguments)
        return (result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)), True
    except Exception as error:  # a tool may raise anything
        return f"Error: {type(error).__name__}: {error}", False


def result_message(call: ToolCall, result: str) -> dict[str, str]:
    """The message that gives ``result`` to the model."""
    return {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": result}
