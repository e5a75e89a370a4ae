"""A model behind an OpenAI-compatible server (vLLM, llama.cpp, a hosted one) as a model for verification, without
logits.

The server uses its own random numbers, so two models are compared unpaired. Its sampling defaults are not known here,
so every request contains the settings of the run. Replies are not kept from one run to the next, because an address
does not identify the weights behind it.
"""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any
from urllib.parse import urldefrag

from edgedistill.errors import VerifyError
from edgedistill.extras import missing
from edgedistill.runtime.sampling import NoiseKey
from edgedistill.runtime.text.reasoning import DEFAULT_TAGS, split
from edgedistill.safe_text import visible
from edgedistill.verify.metrics.lengths import repetition_rate
from edgedistill.verify.sampling.answers import read_reply
from edgedistill.verify.sampling.protocol import SampledModel
from edgedistill.verify.types import Drawn, ModelIdentity, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import httpx

    from edgedistill.runtime.batch.request import DrawSettings, Finish
    from edgedistill.verify.metrics.device_agreement import DeviceReport
    from edgedistill.verify.sampling.protocol import Missing
    from edgedistill.verify.types import Prompt

KEY = "OPENAI_API_KEY"
"""Environment variable with the API key, for servers that need one."""

REQUESTS = 8
"""Number of requests at a time, which servers process as a batch."""

SECONDS = 600.0
"""Longest wait for a reply, in seconds."""

_TRIES = 5
_BUSY = (429, 500, 502, 503, 504)
_LONGEST_WAIT = 30.0
_REMEDY = "Check that the server runs: curl {url}/models"


def is_address(text: object) -> bool:
    """Whether ``text`` is the address of a server."""
    return str(text).startswith(("http://", "https://"))


class EndpointModel(SampledModel):
    """A model of a server.

    Args:
        address: Of the API, such as ``http://localhost:8000/v1``; ``#NAME`` at its end chooses one of several models.
        requests: Number of requests at a time.

    Raises:
        MissingExtraError: httpx is not installed.
        VerifyError: No server answers, or it does not have the model.
    """

    def __init__(self, address: str, *, requests: int = REQUESTS) -> None:
        try:
            import httpx
        except ImportError as error:
            raise missing("A server is asked with httpx, which is not installed.", "endpoint") from error
        url, wanted = urldefrag(address)
        self._url = url.rstrip("/")
        self._requests = requests
        key = os.environ.get(KEY)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=requests)
        self._client = httpx.Client(headers=headers, timeout=httpx.Timeout(SECONDS, connect=10.0), limits=limits)
        try:
            self._model = self._find(wanted)
        except BaseException:
            self._client.close()
            raise
        self.identity = ModelIdentity("endpoint", self._model, "", "", 0, {"server": self._url})

    @property
    def activity(self) -> str:
        """Label for progress."""
        return f"asking {self.identity.name}"

    def draw_missing(self, missing: Sequence[Missing], settings: DrawSettings) -> Iterator[Drawn]:
        """See ``SampledModel``. Replies have no token ids."""
        if likely := [prompt.id for prompt, _ in missing if prompt.extract == "likelihood"]:
            raise VerifyError(
                f"The choices of `{likely[0]}` are decided by likelihood, and a server gives no likelihoods.",
                hint="Ask for a letter instead: `extract` choice.",
            )
        pool = ThreadPoolExecutor(self._requests)
        try:
            work = [(prompt, index) for prompt, indices in missing for index in indices]
            asked = [pool.submit(self._ask, prompt, index, settings) for prompt, index in work]
            for answered in as_completed(asked):
                yield answered.result()
                if self.cancelled:
                    return
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def devices(self, prompts: Sequence[Prompt], settings: DrawSettings) -> DeviceReport | None:  # noqa: ARG002
        """None: the server does not say which devices it uses."""
        return None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _find(self, wanted: str) -> str:
        found = self._json(self._request("GET", "/models")).get("data")
        names = [str(one.get("id")) for one in found if isinstance(one, dict)] if isinstance(found, list) else []
        if wanted and names and wanted not in names:
            raise VerifyError(
                f"The server {self._url} has no model `{visible(wanted)}`; it has {visible(', '.join(names[:8]))}."
            )
        if not wanted and len(names) != 1:
            several = visible(", ".join(names[:8])) or "none that it names"
            raise VerifyError(
                f"The server {self._url} has {len(names)} models ({several}); expected one.",
                hint=f"Name it behind the address: {self._url}#NAME",
            )
        return wanted or names[0]

    def _ask(self, prompt: Prompt, index: int, settings: DrawSettings) -> Drawn:
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": message.role, "content": message.content} for message in prompt.messages],
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_new_tokens,
            "seed": NoiseKey.of(settings.seed, prompt=prompt.id, sample=index).state >> 33,
        }
        # Not part of OpenAI's API, so they are sent only if they are set.
        body |= {k: v for k, v in (("top_k", settings.top_k), ("min_p", settings.min_p)) if v}
        if settings.repetition_penalty != 1.0:
            body |= dict.fromkeys(("repetition_penalty", "repeat_penalty"), settings.repetition_penalty)
        if settings.thinking is not None:
            body["chat_template_kwargs"] = {"enable_thinking": settings.thinking}
        value = self._json(self._request("POST", "/chat/completions", body))
        try:
            choice = value["choices"][0]
            message, finish = choice["message"], choice.get("finish_reason")
            content, reasoning = message.get("content") or "", message.get("reasoning_content") or ""
            count = int((value.get("usage") or {}).get("completion_tokens") or 0)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise VerifyError(
                f"The server {self._url} did not return a chat completion: {visible(str(value)[:120])}."
            ) from error
        return _drawn(prompt, index, str(content), str(reasoning), "stop" if finish == "stop" else "length", count)

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        import httpx

        for attempt in range(_TRIES):
            try:
                response = self._client.request(method, f"{self._url}{path}", json=body)
            except httpx.TimeoutException as error:
                raise VerifyError(
                    f"The server {self._url} did not answer within {SECONDS:.0f} s.",
                    hint="Give a smaller --max-new-tokens.",
                ) from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                said = visible(str(error)) or type(error).__name__
                raise VerifyError(
                    f"The server {self._url} cannot be reached: {said}.", hint=_REMEDY.format(url=self._url)
                ) from error
            if response.status_code not in _BUSY or attempt == _TRIES - 1:
                break
            time.sleep(_wait(response.headers.get("Retry-After"), attempt))
        if response.status_code >= 400:
            key = f" Its key belongs in {KEY}." if response.status_code in (401, 403) else ""
            said = visible(" ".join(response.text[:200].split()))
            raise VerifyError(
                f"The server {self._url} answered {response.status_code}: {said}.{key}",
                hint=_REMEDY.format(url=self._url),
            )
        return response

    def _json(self, response: httpx.Response) -> dict[str, Any]:
        try:
            value = response.json()
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise VerifyError(
                f"The server {self._url} did not return a JSON object; expected an OpenAI-compatible API.",
                hint="The address usually ends in /v1.",
            )
        return value


def _drawn(prompt: Prompt, index: int, content: str, reasoning: str, finish: Finish, count: int) -> Drawn:
    """A reply as a sample. If the server does not count tokens, words are counted instead."""
    tags = DEFAULT_TAGS[0]
    if reasoning:
        content = f"{tags.open}{reasoning}{tags.close}{content}"
    elif tags.close in content and tags.open not in content.partition(tags.close)[0]:
        content = f"{tags.open}{content}"  # the template opened it in the prompt
    words = content.split()
    numbers: dict[str, int] = {}
    reading = read_reply(prompt, content, truncated=finish != "stop")
    inside = len(content) - len(split(content).answer)
    tokens = count or len(words)
    sample = Sample(
        prompt_id=prompt.id,
        index=index,
        kind=reading.kind,
        answer=reading.answer,
        text=reading.text,
        tokens=tokens,
        # Only the text is known: tokens in proportion to its characters.
        reasoning_tokens=math.floor(tokens * inside / max(1, len(content))),
        unclosed=reading.unclosed,
        repetition=repetition_rate([numbers.setdefault(word, len(numbers)) for word in words]),
        correct=reading.correct,
        loose=reading.loose,
    )
    return Drawn(sample, (), finish)


def _wait(retry_after: str | None, attempt: int) -> float:
    """Seconds until the next attempt: the server's Retry-After, or 0.5 s doubled each time."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        seconds = 0.5 * 2.0**attempt
    return min(max(0.0, seconds), _LONGEST_WAIT)
