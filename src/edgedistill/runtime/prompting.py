"""What one model is given and may answer: messages to text, text to ids, a request to the mask of its tokens."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from edgedistill.errors import GenerationError
from edgedistill.runtime.loading import load_grammar
from edgedistill.runtime.structured.channels import begun_in_channels
from edgedistill.runtime.structured.gate import ReasoningGate
from edgedistill.runtime.structured.masks import MaskMaker
from edgedistill.runtime.structured.opened_call import OpenedCallMask
from edgedistill.runtime.text.chat_template import PassThrough
from edgedistill.runtime.text.messages import plain_messages
from edgedistill.runtime.text.reasoning import opened_by
from edgedistill.runtime.text.thinking import ThinkingControl
from edgedistill.runtime.tools.control import ToolControl
from edgedistill.runtime.tools.forced import calls_grammar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tokenizers import Tokenizer

    from edgedistill.bundle.bundle import Bundle
    from edgedistill.catalog.reasoning import ReasoningGrammar
    from edgedistill.runtime.generation_request import Request
    from edgedistill.runtime.structured.masks import TokenMask
    from edgedistill.runtime.text.chat_template import Template
    from edgedistill.runtime.tools.types import Tool

    Prompt = str | Sequence[Mapping[str, Any]]


class Prompting:
    """The part of a ``Model`` that computes nothing: template, tokenizer, reasoning, tools, forms of answers.

    Attributes:
        bundle: The opened bundle.
        tokenizer: Its tokenizer.
        template: Its chat template; a ``PassThrough`` where it has none.
        thinking: Renders prompts with or without reasoning.
        tools: How tools are offered to it, and how it writes calls.
        template_vars: Variables of the chat template, for every prompt.
        grammar: The marks of its reasoning: the manifest's, else what its template and tokenizer speak of.
    """

    def __init__(
        self, bundle: Bundle, template: Template, tokenizer: Tokenizer, reasoning_tags: Sequence[str] | None = None
    ) -> None:
        """Raises UsageError unless ``reasoning_tags`` are two different texts."""
        self.bundle, self.template, self.tokenizer = bundle, template, tokenizer
        self.grammar: ReasoningGrammar = load_grammar(bundle, tokenizer, reasoning_tags)
        self.template_vars: dict[str, Any] = {}
        self.thinking = ThinkingControl(template, self.grammar, lambda text: tokenizer.token_to_id(text) is not None)
        self.tools = ToolControl(template, {token.content for token in tokenizer.get_added_tokens_decoder().values()})
        info = bundle.manifest.model
        self._masks = MaskMaker(tokenizer, vocab_size=info.vocab_size, eos=info.eos_token_ids)

    def render(
        self,
        prompt: Prompt,
        *,
        thinking: bool | None = None,
        raw: bool = False,
        think_budget: int = 0,
        template_vars: Mapping[str, Any] | None = None,
        tools: Sequence[Tool] = (),
    ) -> str:
        """The text that the model is given.

        Args:
            prompt: A question, or messages in OpenAI's form: dicts with ``role`` and ``content``, which is a text or a
                list of parts of type ``text``; calls of tools and messages of the role ``tool`` among them.
            thinking: Have the model reason or not; None leaves it to the template.
            raw: Take ``prompt``, which must be a string, as it is.
            think_budget: Told to a template that takes a number of tokens; 0: not told.
            template_vars: Further variables of the template, on top of ``self.template_vars``.
            tools: What the model may call.

        Raises:
            TemplateError, GenerationError: See ``ChatTemplate.render``.
        """
        if raw and not isinstance(prompt, str):
            raise GenerationError("A raw prompt is a text; messages need the chat template.")
        if isinstance(prompt, str):
            if raw:
                return prompt
            prompt = [{"role": "user", "content": prompt}]
        messages, offer = self.tools.offer(plain_messages(prompt), tools)
        variables = {**offer, **self.template_vars, **(template_vars or {})}
        return self.thinking.render(messages, thinking=thinking, budget=think_budget, variables=variables)

    def rendered(self, request: Request) -> str:
        """The text of the prompt that ``request`` asks to be answered."""
        return self.render(
            request.prompt, thinking=request.thinking, raw=request.raw, think_budget=request.think_budget,
            template_vars=request.template_vars, tools=request.offered,
        )  # fmt: skip

    def note(self, request: Request) -> str | None:
        """A remark on how ``request`` was understood; None if there is nothing to say."""
        if request.raw:
            return None
        without = PassThrough.note if isinstance(self.template, PassThrough) else self.thinking.note(request.thinking)
        guesses = None
        if self.bundle.manifest.model.states and request.settings.speculate not in ("off", "identical"):
            guesses = "No tokens are guessed: the states of this model's recurrent layers cannot be taken back."
        return " ".join(note for note in (without, self.tools.note(request.offered), guesses) if note) or None

    def mask(self, request: Request, prompt: str) -> TokenMask | None:
        """Which tokens may come in the reply to ``request``, whose rendered text is ``prompt``; None: any.

        Raises:
            MissingExtraError: llguidance is not installed.
            GenerationError: The request's form cannot be used, or no call be forced in this model's form.
        """
        required = request.tool_choice.kind == "required"
        opened = opened_by(prompt, self.grammar)
        if request.constraint is None and not required:
            if not request.offered or find_spec("llguidance") is None:
                return None
            return OpenedCallMask(
                self._masks, self.tokenizer, self.grammar, self.tools.formats, request.offered, opened=opened,
                begun=request.continuing,
            )  # fmt: skip
        calls = None
        if request.offered:
            called = [tool for tool in request.offered if request.tool_choice.name in (None, tool.name)]
            calls = calls_grammar(
                self.tools.formats[0], called, self._masks.special, several=request.tool_choice.name is None
            )  # fmt: skip
        begun = begun_in_channels(self.grammar, self._masks.special, prompt, request.continuing)
        if begun is not None and not request.raw:
            return self._masks.mask(
                request.constraint, calls=calls, required=required, channels=self.grammar, begun=begun
            )  # fmt: skip
        reasons = not request.raw and request.thinking is not False
        gate = ReasoningGate(
            self.tokenizer, self.grammar, opened=opened, begun=request.continuing,
            may_open=self.thinking.pair if reasons else None,
        )  # fmt: skip
        first = opened is None and not request.continuing
        return self._masks.mask(request.constraint, calls=calls, required=required, gate=gate, first=first)

    def encode(self, text: str, *, raw: bool = False) -> list[int]:
        """Token ids of a rendered prompt; ``raw`` adds the beginning-of-sequence token where the model wants one."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        info = self.bundle.manifest.model
        templated = not raw and not isinstance(self.template, PassThrough)
        if not templated and info.add_bos and info.bos_token_id is not None and ids[:1] != [info.bos_token_id]:
            return [info.bos_token_id, *ids]
        return ids
