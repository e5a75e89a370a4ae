"""Calls of tools as the chat templates of each family write them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Call = tuple[str, dict[str, Any]]
    Writer = Callable[[Sequence[Call]], str]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _objects(calls: Sequence[Call], name: str = "name", arguments: str = "arguments") -> list[dict[str, Any]]:
    return [{name: called, arguments: given} for called, given in calls]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _python(call: Call) -> str:
    return f"{call[0]}({', '.join(f'{key}={value!r}' for key, value in call[1].items())})"


def _tagged(call: Call) -> str:
    given = "".join(f"<parameter={key}>\n{_text(value)}\n</parameter>\n" for key, value in call[1].items())
    return f"<function={call[0]}>\n{given}</function>"


def _glm(call: Call) -> str:
    pairs = call[1].items()
    given = "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{_text(value)}</arg_value>\n" for key, value in pairs)
    return f"<tool_call>{call[0]}\n{given}</tool_call>"


def _braced(value: Any, quote: str) -> str:
    if isinstance(value, str):
        return f"{quote}{value}{quote}"
    if isinstance(value, list):
        return f"[{','.join(_braced(one, quote) for one in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key}:{_braced(one, quote)}' for key, one in value.items())}}}"
    return _json(value)


def _around(opening: str, closing: str, write: Callable[[Call], str], between: str = "\n") -> Writer:
    return lambda calls: between.join(f"{opening}{write(call)}{closing}" for call in calls)


def _within(opening: str, closing: str, write: Callable[[Call], str], between: str = "\n") -> Writer:
    return lambda calls: f"{opening}{between.join(write(call) for call in calls)}{closing}"


_DEEPSEEK = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_BEGIN, _SEP, _END = "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>"

WRITERS: dict[str, Writer] = {
    "gpt-oss": _around(
        "<|channel|>commentary to=functions.",
        "<|call|>",
        lambda call: f"{call[0]} <|constrain|>json<|message|>{_json(call[1])}",
        "<|start|>assistant",
    ),
    "Hermes": _around("<tool_call>\n", "\n</tool_call>", lambda call: _json(_objects([call])[0])),
    "Qwen3-Coder": _around("<tool_call>\n", "\n</tool_call>", _tagged),
    "Seed-OSS": _around("<seed:tool_call>\n", "\n</seed:tool_call>", _tagged),
    "GLM": _around("", "", _glm),
    "Hunyuan": _within(
        "<tool_calls>\n",
        "\n</tool_calls>",
        lambda call: f"<tool_call>{call[0]}\n```json\n{_json(call[1])}\n```\n</tool_call>",
    ),
    "DeepSeek": _within(
        *_DEEPSEEK, lambda call: f"{_BEGIN}function{_SEP}{call[0]}\n```json\n{_json(call[1])}\n```{_END}"
    ),
    "DeepSeek V3.1": _within(*_DEEPSEEK, lambda call: f"{_BEGIN}{call[0]}{_SEP}{_json(call[1])}{_END}", ""),
    "Mistral Nemo": lambda calls: f"[TOOL_CALLS]{_json([{**o, 'id': '123456789'} for o in _objects(calls)])}",
    "Mistral": _around("[TOOL_CALLS]", "", lambda call: f"{call[0]}[CALL_ID]123456789[ARGS]{_json(call[1])}", ""),
    "Granite 3, Phi 4 mini": lambda calls: f"<|tool_call|>{_json(_objects(calls))}<|/tool_call|>",
    "Nemotron": lambda calls: f"<TOOLCALL>{_json(_objects(calls))}</TOOLCALL>",
    "Apertus": lambda calls: f"<|tools_prefix|>{_json([{name: given} for name, given in calls])}<|tools_suffix|>",
    "Cohere": lambda calls: (
        f"<|START_ACTION|>{json.dumps(_objects(calls, 'tool_name', 'parameters'), indent=4)}<|END_ACTION|>"
    ),
    "LFM2": _within("<|tool_call_start|>[", "]<|tool_call_end|>", _python, ", "),
    "OLMo 3": _within("<function_calls>\n", "\n</function_calls>", _python),
    "FunctionGemma": _around(
        "<start_function_call>call:", "<end_function_call>", lambda c: c[0] + _braced(c[1], "<escape>"), ""
    ),
    "Gemma 4": _around("<|tool_call>call:", "<tool_call|>", lambda call: call[0] + _braced(call[1], '<|"|>'), ""),
    "Gemma 3": _within("```tool_code\n", "\n```", _python),
    "Llama 3": _within("<|python_tag|>", "", lambda call: _json(_objects([call], arguments="parameters")[0]), "; "),
    "Llama functions": _around("", "</function>", lambda call: f"<function={call[0]}>{_json(call[1])}", ""),
    "bare JSON": _within("", "", lambda call: _json(_objects([call], arguments="parameters")[0]), "; "),
    "Pythonic": _within("[", "]", _python, ", "),
}
"""By the names of ``catalog.tool_formats.FORMATS``."""
