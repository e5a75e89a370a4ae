"""What is to be generated: one checked record of the keywords that everything that generates takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgedistill.errors import GenerationError
from edgedistill.runtime.logprobs import check_top
from edgedistill.runtime.settings import check_numerics
from edgedistill.runtime.structured.constraint import Constraint, constraint_of
from edgedistill.runtime.tools.types import Tool, ToolChoice, tools_of

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping, Sequence

    from edgedistill.runtime.model import Model
    from edgedistill.runtime.prompting import Prompt
    from edgedistill.runtime.settings import GenerationSettings, Numerics
    from edgedistill.runtime.structured.constraint import ResponseFormat, Schema
    from edgedistill.runtime.text.thinking import Effort
    from edgedistill.runtime.tools.types import ToolChoiceArgument, ToolsArgument


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be generated; the fields are the arguments of ``Model.stream``."""

    prompt: Prompt
    settings: GenerationSettings
    numerics: Numerics = "fast"
    thinking: bool | None = None
    raw: bool = False
    continuing: str = ""
    logprobs: int | None = None
    think_budget: int = 0
    template_vars: Mapping[str, Any] | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()  # noqa: RUF009 (it is frozen)
    constraint: Constraint | None = None

    @property
    def offered(self) -> tuple[Tool, ...]:
        """The tools that the model is told of."""
        return () if self.tool_choice.kind == "none" else self.tools


def request_of(
    model: Model,
    prompt: Prompt,
    *,
    temperature: float | None = None,
    max_new_tokens: int | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    seed: int | None = None,
    stop: str | Sequence[str] | None = None,
    speculate: str | int | None = None,
    logprobs: int | None = None,
    settings: GenerationSettings | None = None,
    numerics: Numerics = "fast",
    thinking: bool | None = None,
    think_budget: int = 0,
    reasoning_effort: Effort | None = None,
    template_vars: Mapping[str, Any] | None = None,
    tools: ToolsArgument | None = None,
    tool_choice: ToolChoiceArgument | None = None,
    response_format: ResponseFormat | None = None,
    json_schema: Schema | None = None,
    grammar: str | None = None,
    regex: str | None = None,
    choices: Sequence[str] | None = None,
    raw: bool = False,
    continuing: str = "",
    cancel: threading.Event | None = None,  # noqa: ARG001 (the keywords' own; whoever generates looks at it)
) -> Request:
    """The request that keywords of ``Model.generate`` are.

    Raises:
        GenerationError: A value out of range, or two that contradict each other.
    """
    given = {
        "temperature": temperature, "max_new_tokens": max_new_tokens, "top_p": top_p, "top_k": top_k, "min_p": min_p,
        "repetition_penalty": repetition_penalty, "seed": seed, "speculate": speculate,
        "stop": None if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
    }  # fmt: skip
    chosen = settings or model.default_settings
    changes = {name: value for name, value in given.items() if value is not None}
    chosen = chosen.replace(**changes) if changes else chosen
    check_top(logprobs)
    if think_budget < 0:
        raise GenerationError(f"think_budget is {think_budget}; expected 0 (no limit) or more.")
    if reasoning_effort is not None:
        wanted, budget, variables = model.thinking.effort(reasoning_effort, chosen.max_new_tokens)
        thinking = wanted if thinking is None else thinking
        think_budget = think_budget or (budget if thinking else 0)
        template_vars = {**variables, **(template_vars or {})}
    offered = tools_of(tools)
    choice = ToolChoice.of(tool_choice, offered)
    form = constraint_of(
        response_format=response_format, json_schema=json_schema, grammar=grammar, regex=regex, choices=choices
    )
    if form is not None and choice.kind == "required":
        raise GenerationError("A call is required and the answer has a form; expected one of the two.")
    if offered and raw:
        raise GenerationError("A raw prompt uses no chat template, so that tools have no place in it.")
    return Request(
        prompt, chosen, check_numerics(numerics), thinking, raw, continuing, logprobs, think_budget, template_vars,
        offered, choice, form,
    )  # fmt: skip
