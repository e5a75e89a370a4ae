"""How families of models write calls of tools, and which of these forms a model uses.

A form is found from what comes with the model: its chat template and the tokens of its tokenizer. Reading calls out of
a reply is ``runtime.tools``'.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True, slots=True)
class Json:
    """``{"name": ..., "arguments": {...}}``, or a list of such objects.

    Attributes:
        name, arguments: The keys, as a call is written; others that are common are read as well. An empty ``name``:
            the name is the key, as in ``{"f": {"a": 1}}``.
        listed: Written as a list, even of one.
    """

    name: str = "name"
    arguments: str = "arguments"
    listed: bool = False


@dataclass(frozen=True, slots=True)
class Headed:
    """The name in ``head`` (with ``{name}``, and ``{id}`` where there is one), the arguments as a JSON object,
    ``tail``.
    """

    head: str
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Tagged:
    """The name in ``head``, every argument between ``key`` (with ``{key}``) and ``end``, then ``tail``.

    A text stands as it is, anything else as JSON.
    """

    head: str
    key: str
    end: str
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Python:
    """``f(a=1, b="x")``, in brackets where ``listed``."""

    listed: bool = True


@dataclass(frozen=True, slots=True)
class Braced:
    """``call:f{a:1,b:<quote>x<quote>}``."""

    quote: str


Body = Json | Headed | Tagged | Python | Braced


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """One form.

    Attributes:
        name: The family.
        open: What begins calls; empty: they begin a reply and are all of it.
        close: What ends them; it may be missing at the end of a reply. Empty: nothing does.
        bodies: The forms of what stands between; the first is the one that this family writes.
        evidence: Each of these is in the template, or is a token.
        after: White space that the family writes after ``open``, before ``close``.
        also: Other texts that begin calls.
        lead: What stands before ``open``, and before ``also``, where reasoning came before.
        last: ``close`` is an end token: a call ends the reply.
    """

    name: str
    open: str
    close: str
    bodies: tuple[Body, ...]
    evidence: tuple[str, ...]
    after: Literal["", "\n"] = ""
    also: tuple[str, ...] = ()
    lead: str = ""
    last: bool = False

    @property
    def opens(self) -> tuple[str, ...]:
        """Every text that begins calls; empty where none does."""
        texts = [text for text in (self.open, *self.also) if text]
        return (*texts, *(self.lead + text for text in texts if self.lead))

    @property
    def marks(self) -> tuple[str, ...]:
        """Every text that may be a special token."""
        texts = [*self.opens, self.close]
        for body in self.bodies:
            match body:
                case Headed():
                    texts += [body.head, body.tail]
                case Tagged():
                    texts += [body.head, body.key, body.end, body.tail]
                case Braced():
                    texts.append(body.quote)
                case _:
                    pass
        return tuple(text for text in texts if text)


HERMES = ToolFormat("Hermes", "<tool_call>", "</tool_call>", (Json(),), ("<tool_call>",), after="\n")
"""Also what a model is asked for whose template knows no tools."""
BARE = ToolFormat("bare JSON", "", "", (Json(arguments="parameters"),), ("dictionary of argument name",))

_HARMONY = ToolFormat(
    "gpt-oss",
    "<|channel|>commentary to=functions.",
    "<|call|>",
    (
        Headed("{name} <|constrain|>json<|message|>"),
        Headed("{name} json<|message|>"),
        Headed("{name} code<|message|>"),
        Headed("{name}<|message|>"),
        Headed("{name}<|channel|>commentary <|constrain|>json<|message|>"),
        Headed("{name}<|channel|>commentary json<|message|>"),
        Headed("{name}<|channel|>commentary<|message|>"),
    ),
    ("<|channel|>", "<|call|>"),
    also=("<|channel|>analysis to=functions.", " to=functions."),
    lead="<|start|>assistant",
    last=True,
)
"""Calls as github.com/openai/harmony renders them; the recipient may stand before the channel."""
_CODER = Tagged("<function={name}>\n", "<parameter={key}>\n", "\n</parameter>\n", "</function>")
_DEEPSEEK = "<｜tool▁call▁begin｜>"

FORMATS = (
    _HARMONY,
    ToolFormat("Qwen3-Coder", "<tool_call>", "</tool_call>", (_CODER, Json()), ("<tool_call>", "<function="), "\n"),
    ToolFormat("Seed-OSS", "<seed:tool_call>", "</seed:tool_call>", (_CODER,), ("<seed:tool_call>",), "\n"),
    ToolFormat(
        "GLM",
        "<tool_call>",
        "</tool_call>",
        (Tagged("{name}\n", "<arg_key>{key}</arg_key>\n<arg_value>", "</arg_value>\n"), Json()),
        ("<tool_call>", "<arg_key>"),
    ),
    ToolFormat(
        "Hunyuan",
        "<tool_calls>",
        "</tool_calls>",
        (Headed("<tool_call>{name}\n```json\n", "\n```\n</tool_call>"),),
        ("<tool_calls>", "<tool_call>"),
        "\n",
    ),
    HERMES,
    ToolFormat(
        "DeepSeek",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        (
            Headed(f"{_DEEPSEEK}function<｜tool▁sep｜>{{name}}\n```json\n", "\n```<｜tool▁call▁end｜>"),
            Headed(f"{_DEEPSEEK}{{name}}<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),
        ),
        ("<｜tool▁calls▁begin｜>", "```json"),
    ),
    ToolFormat(
        "DeepSeek V3.1",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        (Headed(f"{_DEEPSEEK}{{name}}<｜tool▁sep｜>", "<｜tool▁call▁end｜>"),),
        ("<｜tool▁calls▁begin｜>",),
    ),
    ToolFormat("Mistral Nemo", "[TOOL_CALLS]", "", (Json(listed=True), Headed("{name}[ARGS]")), ("[TOOL_CALLS]",)),
    ToolFormat(
        "Mistral",
        "[TOOL_CALLS]",
        "",
        (Headed("{name}[ARGS]"), Headed("{name}[CALL_ID]{id}[ARGS]"), Headed("{name}")),
        ("[TOOL_CALLS]", "[ARGS]"),
    ),
    ToolFormat("Granite 3, Phi 4 mini", "<|tool_call|>", "<|/tool_call|>", (Json(listed=True),), ("<|tool_call|>",)),
    ToolFormat("Nemotron", "<TOOLCALL>", "</TOOLCALL>", (Json(listed=True),), ("<TOOLCALL>",)),
    ToolFormat("Apertus", "<|tools_prefix|>", "<|tools_suffix|>", (Json(name="", listed=True),), ("<|tools_prefix|>",)),
    ToolFormat(
        "Cohere",
        "<|START_ACTION|>",
        "<|END_ACTION|>",
        (Json(name="tool_name", arguments="parameters", listed=True),),
        ("<|START_ACTION|>",),
    ),
    ToolFormat("LFM2", "<|tool_call_start|>", "<|tool_call_end|>", (Python(),), ("<|tool_call_start|>",)),
    ToolFormat("OLMo 3", "<function_calls>", "</function_calls>", (Python(listed=False),), ("<function_calls>",), "\n"),
    ToolFormat(
        "FunctionGemma",
        "<start_function_call>",
        "<end_function_call>",
        (Braced("<escape>"),),
        ("<start_function_call>",),
    ),
    ToolFormat("Gemma 4", "<|tool_call>", "<tool_call|>", (Braced('<|"|>'),), ("<|tool_call>", "<tool_call|>")),
    ToolFormat("Gemma 3", "```tool_code", "```", (Python(listed=False),), ("```tool_code",), "\n"),
    ToolFormat(
        "Llama 3", "<|python_tag|>", "", (Json(arguments="parameters"), Python(listed=False)), ("<|python_tag|>",)
    ),
    ToolFormat("Llama functions", "<function=", "</function>", (Headed("{name}>"),), ("<function=", "</function>")),
    BARE,
    ToolFormat("Pythonic", "", "", (Python(),), ("[func_name1(params_name1=",)),
)
"""Known families. Qwen 2.5 and 3, SmolLM3, Granite 4, EXAONE 4, ERNIE 4.5 and MiniCPM 4 are ``Hermes``."""

_INSTEAD = {"Qwen3-Coder": ("Hermes", "Llama functions"), "GLM": ("Hermes",), "Hunyuan": ("Hermes",),
            "Mistral": ("Mistral Nemo",), "DeepSeek": ("DeepSeek V3.1",), "Seed-OSS": ("Llama functions",),
            "Llama 3": ("bare JSON",)}  # fmt: skip
"""Forms of which a family's own one is a special case."""


def find_formats(template: str | None, tokens: Collection[str] = ()) -> tuple[ToolFormat, ...]:
    """The forms that a model's files speak of, the likeliest first; empty if none.

    Args:
        template: Its chat template.
        tokens: Special and added tokens of its tokenizer.
    """
    text = template or ""
    written = [one for one in FORMATS if all(mark in text for mark in one.evidence)]
    found = written or [one for one in FORMATS if all(mark in text or mark in tokens for mark in one.evidence)]
    less = {name for one in found for name in _INSTEAD.get(one.name, ())}
    kept = [one for one in found if one.name not in less]
    # A model that was trained on the tag of Llama 3 writes the object without it as often.
    return tuple(kept + ([BARE] if any(one.name == "Llama 3" for one in kept) else []))
