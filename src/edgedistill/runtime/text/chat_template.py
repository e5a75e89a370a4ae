"""Chat templates: messages to the prompt text the model was trained on.

Rendering happens in a helper process (``chat_template_worker.py``) with limits, because a template is foreign code and
some endless templates cannot be stopped from inside the process that runs them. The helper starts when the template
is opened, in parallel with the loading of the model, and serves all turns.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgedistill.errors import GenerationError, TemplateError
from edgedistill.runtime.text.messages import flattened, forms, holds
from edgedistill.runtime.tools.history import as_texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Message = Mapping[str, Any]

MAX_TEMPLATE_CHARS = 1_000_000
MAX_PROMPT_CHARS = 32_000_000
START_SECONDS = 30.0
GRACE_SECONDS = 1.0
"""After the deadline the helper ends itself, should this process be gone."""
_HINT = "Ask with --raw to send the prompt as it is, or correct chat_template.jinja and export again."


class Template(Protocol):
    """What a model needs of a template."""

    @property
    def source(self) -> str:
        """The template; empty if there is none."""
        ...

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """The prompt text for ``messages``."""
        ...

    def close(self) -> None:
        """Release what the template holds."""
        ...


class PassThrough:
    """Stands in where a bundle has no template: the contents of the messages, one a line, and nothing else."""

    note = "This bundle has no chat template: the prompt goes to the model as it is."
    source = ""

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,  # noqa: ARG002
        **variables: Any,  # noqa: ARG002
    ) -> str:
        """The contents of the messages, joined by line ends. Raises GenerationError on malformed messages."""
        return "\n".join(str(message["content"]) for message in flattened(as_texts(check_messages(messages))))

    def close(self) -> None:
        """Nothing to release."""


class ChatTemplate:
    """A Jinja chat template as Hugging Face tokenizers carry them; renders what ``apply_chat_template`` renders.

    Args:
        source: The template.
        special_tokens: Strings that templates may name (``bos_token``, ``eos_token``, ...).
        deadline_s: Seconds after which a rendering is ended.

    Raises:
        TemplateError: If the template is longer than a million characters.
    """

    def __init__(
        self, source: str, *, special_tokens: Mapping[str, str] | None = None, deadline_s: float = 3.0
    ) -> None:
        if len(source) > MAX_TEMPLATE_CHARS:
            raise TemplateError(
                f"The chat template has {len(source)} characters, at most {MAX_TEMPLATE_CHARS} are accepted.",
                hint=_HINT,
            )
        self._source = source
        self._special_tokens = dict(special_tokens or {})
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._worker: _Worker | None = _Worker()

    @property
    def source(self) -> str:
        """The template."""
        return self._source

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        **variables: Any,
    ) -> str:
        """Render ``messages`` (dicts with ``role`` and ``content``).

        Where the template refuses them or leaves a text out, other forms of the same messages are tried: contents as
        texts or as parts, the system's text before the first question (see ``messages.forms``).

        Args:
            messages: The conversation so far.
            add_generation_prompt: Open the assistant's turn at the end.
            variables: Further JSON-able variables (``tools``, ``enable_thinking``, ...).

        Raises:
            TemplateError: A template that is malformed, reaches for attributes, raises, or does not end.
            GenerationError: Malformed messages.
        """
        values: dict[str, Any] = {"tools": None, "documents": None, **self._special_tokens, **variables}
        values["add_generation_prompt"] = add_generation_prompt
        refusal: TemplateError | None = None
        incomplete: str | None = None
        for form in forms(check_messages(messages)):
            reply = self._reply({**values, "messages": form})
            text = reply.get("text")
            if text is None:
                error = TemplateError(_MESSAGES[reply["error"]].format(reply["message"]), hint=_HINT)
                if reply["error"] != "template":
                    raise error
                refusal = refusal or error
            elif holds(text, form):
                return text
            elif incomplete is None:
                incomplete = text
        if incomplete is not None:
            return incomplete
        raise refusal or TemplateError("The chat template rendered nothing.", hint=_HINT)

    def _reply(self, variables: dict[str, Any]) -> dict[str, str]:
        """The helper's reply; raises TemplateError if none comes in time."""
        request = {
            "template": self._source,
            "variables": variables,
            "limit": MAX_PROMPT_CHARS,
            "deadline": self._deadline_s + GRACE_SECONDS,
        }
        with self._lock:
            if self._worker is None:
                self._worker = _Worker()
            reply = self._worker.ask(request, self._deadline_s)
            if reply is None:
                self._worker.close()
                self._worker = None
        if reply is None:
            raise TemplateError(
                f"The chat template did not finish within {self._deadline_s:g} s and was stopped.", hint=_HINT
            )
        return reply

    def close(self) -> None:
        """End the helper process; a later ``render`` starts another."""
        with self._lock:
            if self._worker is not None:
                self._worker.close()
                self._worker = None


_MESSAGES = {
    "security": "The chat template was stopped, it tries what templates may not do: {0}.",
    "template": "The chat template cannot be rendered: {0}.",
    "memory": "The chat template {0} and was stopped.",
    "size": f"The chat template {{0}}, at most {MAX_PROMPT_CHARS} are accepted.",
}


def check_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as plain dicts; raises GenerationError, naming the first that has no role or content."""
    if not messages:
        raise GenerationError("There are no messages; expected at least one with a role and a content.")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise GenerationError(f"Message {index} has no role; expected a dict with 'role' and 'content'.")
        if not isinstance(message.get("content"), str | list) and not message.get("tool_calls"):
            raise GenerationError(f"Message {index} ({message['role']}) has no content; expected a string.")
    return [dict(message) for message in messages]


class _Worker:
    """The helper process and the pipe to it."""

    def __init__(self) -> None:
        # -P: the worker's directory must not shadow modules of the same names; -S and PYTHONPATH: this process's import
        # path as it is, without looking through site-packages again.
        command = [sys.executable, "-P", "-S", str(Path(__file__).with_name("chat_template_worker.py"))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONUTF8": "1"}
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # the terminal's Ctrl-C does not reach it
            )
        except OSError as error:
            raise TemplateError(f"Cannot start the process that renders chat templates: {error}.") from error
        self._fresh = True
        self._finalizer = weakref.finalize(self, _end, self._process)

    def ask(self, request: dict[str, Any], deadline_s: float) -> dict[str, Any] | None:
        """The reply, or None if the worker ended or did not answer in time."""
        try:
            line = json.dumps(request).encode() + b"\n"
        except (TypeError, ValueError) as error:
            raise GenerationError(f"The messages cannot be written as JSON: {error}.") from error
        replies: list[bytes] = []
        exchange = threading.Thread(target=self._exchange, args=(line, replies), daemon=True)
        exchange.start()
        # The first answer includes the start of the process, which a busy machine may delay.
        exchange.join(deadline_s + (START_SECONDS if self._fresh else 0.0))
        if exchange.is_alive() or not replies or not replies[0]:
            return None
        self._fresh = False
        reply: dict[str, Any] = json.loads(replies[0])
        return reply

    def _exchange(self, line: bytes, replies: list[bytes]) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            return
        try:
            stdin.write(line)
            stdin.flush()
            replies.append(stdout.readline())
        except (OSError, ValueError):  # the worker has ended, or was ended by close()
            return

    def close(self) -> None:
        """End the process."""
        self._finalizer()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            try:
                stream.close()
            except OSError:  # unwritten bytes of a request that the worker will never read
                continue
