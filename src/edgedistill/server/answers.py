"""What responses have in common: identifiers, finish reasons, usage, timings, records of log-probabilities."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

from edgedistill.runtime.text.detokenize import token_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from edgedistill.runtime.batch.live_sequence import Timings
    from edgedistill.runtime.logprobs import TokenLogprob
    from edgedistill.server.service import Service

_FINISH = {"stop": "stop", "stop_string": "stop", "length": "length", "context": "length"}


def head(service: Service, prefix: str, kind: str) -> dict[str, Any]:
    """The first fields of a response."""
    return {
        "id": f"{prefix}-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": service.options.name,
        "system_fingerprint": f"edgedistill-{service.identity[:12]}",
    }


def finish_reason(reason: str) -> str:
    """A runtime's reason in OpenAI's words."""
    return _FINISH.get(reason, "stop")


def usage(timings: Sequence[Timings], prompts: int) -> dict[str, Any]:
    """Tokens of all sequences; ``prompts``: how many of them have a prompt of their own, each with as many samples."""
    samples = max(1, len(timings) // max(1, prompts))
    first = timings[::samples]
    prompt, new = sum(one.prompt_tokens for one in first), sum(one.new_tokens for one in timings)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": new,
        "total_tokens": prompt + new,
        "prompt_tokens_details": {"cached_tokens": sum(one.cached_tokens for one in first)},
        "completion_tokens_details": {"reasoning_tokens": sum(one.reasoning_tokens for one in timings)},
    }


def timings(all_: Sequence[Timings]) -> dict[str, float]:
    """As llama.cpp's server words them, in milliseconds; of several sequences the longest queue and first token."""
    prompt = sum(one.prompt_tokens - one.cached_tokens for one in all_)
    prefill, decode = sum(one.prefill_s for one in all_), max((one.decode_s for one in all_), default=0.0)
    steps = sum(max(0, one.new_tokens - 1) for one in all_)
    return {
        "queue_ms": 1e3 * max((one.queue_s for one in all_), default=0.0),
        "ttft_ms": 1e3 * max((one.ttft_s for one in all_), default=0.0),
        "cache_n": sum(one.cached_tokens for one in all_),
        "prompt_n": prompt,
        "prompt_ms": 1e3 * prefill,
        "prompt_per_second": prompt / prefill if prefill else 0.0,
        "predicted_n": sum(one.new_tokens for one in all_),
        "predicted_ms": 1e3 * decode,
        "predicted_per_second": steps / decode if decode else 0.0,
    }


def chat_logprobs(service: Service, records: Iterable[TokenLogprob]) -> dict[str, Any]:
    """``logprobs`` of a chat's choice."""

    def entry(one: TokenLogprob) -> dict[str, Any]:
        data = token_bytes(service.model.tokenizer, one.token)
        return {"token": one.text, "logprob": one.logprob, "bytes": None if data is None else list(data)}

    return {"content": [{**entry(one), "top_logprobs": [entry(other) for other in one.top]} for one in records]}


class PlainLogprobs:
    """``logprobs`` of a completion's choice, as OpenAI's older API has them: one entry a token.

    The first token of a prompt has none. ``top_logprobs`` has the token itself too; of tokens with the same text the
    likeliest stands.
    """

    def __init__(self) -> None:
        self._offset = 0

    def prompt(self, service: Service, first: int, records: Sequence[TokenLogprob]) -> dict[str, Any]:
        """Of an echoed prompt that begins with token ``first``."""
        text = str(service.model.tokenizer.decode([first], skip_special_tokens=False))
        rest = {"tokens": [text], "token_logprobs": [None], "top_logprobs": [None], "text_offset": [self._offset]}
        self._offset += len(text)
        return merged(rest, self.tokens(records))

    def tokens(self, records: Iterable[TokenLogprob]) -> dict[str, Any]:
        """Of further tokens."""
        found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for one in records:
            top: dict[str, float] = {}
            for other in (*one.top, one):
                top.setdefault(other.text, other.logprob)
            found["tokens"].append(one.text)
            found["token_logprobs"].append(one.logprob)
            found["top_logprobs"].append(top)
            found["text_offset"].append(self._offset)
            self._offset += len(one.text)
        return found


def merged(first: dict[str, Any] | None, second: dict[str, Any]) -> dict[str, Any]:
    """Two parts of ``PlainLogprobs``, one after the other."""
    return second if first is None else {name: first[name] + second[name] for name in second}
