"""Speed and memory of a bundle: load time, prefill and decode rates over rounds, peak memory.

Everything is measured in a process of its own, so that the peak memory is the bundle's and not the caller's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.bundle.bundle import Bundle
from edgedistill.errors import BundleError, ChildError, GenerationError
from edgedistill.json_codec import Record
from edgedistill.progress import NullProgress, Progress
from edgedistill.renamed import accepts_old
from edgedistill.runtime.chunks import chunk_bounds
from edgedistill.runtime.optimum_session import OptimumSession
from edgedistill.runtime.sampling import greedy
from edgedistill.runtime.session import DecoderSession, SessionConfig
from edgedistill.runtime.stats import Spread, peak_rss_bytes, percentile, private_bytes, rss_bytes
from edgedistill.system.child import run_in_child
from edgedistill.system.huge_pages import use_huge_pages

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_PROMPT_TOKENS = (64, 256, 1024)
DEFAULT_NEW_TOKENS = 64
DEFAULT_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Rate(Spread):
    """Tokens per second over the rounds; ``tokens`` is how many each round computed."""

    tokens: int


@dataclass(frozen=True, slots=True)
class BenchResult(Record):
    """Measurements of one bundle.

    Attributes:
        bundle: Name of its directory.
        threads: Threads of the session.
        bundle_bytes: Size of its files.
        load_s: Seconds from the start of loading to a usable session.
        prefill: One rate per prompt length.
        decode: Rate of one-token steps after a prompt of ``decode_context`` tokens.
        step_p50_s, step_p95_s: Percentiles of a step's latency.
        kv_bytes_per_token: Growth of the cache.
        rss_loaded_bytes, peak_rss_bytes: Resident memory after loading and at its highest, of the whole process.
        private_loaded_bytes: Private memory that loading the session took, without tokenizer and mapped pages of the
            file; None: the system does not say.
    """

    bundle: str
    threads: int
    bundle_bytes: int
    load_s: float
    prefill: tuple[Rate, ...]
    decode: Rate
    decode_context: int
    step_p50_s: float
    step_p95_s: float
    kv_bytes_per_token: int
    rss_loaded_bytes: int
    peak_rss_bytes: int
    private_loaded_bytes: int | None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> BenchResult:
        """The inverse of ``to_dict``."""
        prefill = tuple(Rate(tuple(rate["values"]), rate["tokens"]) for rate in values["prefill"])
        decode = Rate(tuple(values["decode"]["values"]), values["decode"]["tokens"])
        return cls(**{**values, "prefill": prefill, "decode": decode})


@accepts_old(repeats="rounds")
def bench(
    path: str | Path,
    *,
    threads: int | None = None,
    prompt_tokens: int | Sequence[int] | None = None,
    new_tokens: int | None = None,
    rounds: int | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Measure the bundle at ``path`` in a process of its own.

    Args:
        path: Bundle directory.
        threads: Overrides the profile's; 0 is one per physical core.
        prompt_tokens: Prompt length or lengths; default 64, 256 and 1024, as far as the context reaches.
        new_tokens: Decode steps per round; default 64.
        rounds: Default 5, after one that does not count.
        progress: Receives one item per round.

    Raises:
        BundleError: No bundle, a damaged one, or a child process that died.
        GenerationError: Numbers that make no sense or do not fit the context.
    """
    progress = progress or NullProgress()
    context = Bundle.open(path).manifest.model.context_length
    request = _request(context, prompt_tokens, new_tokens, rounds)
    request |= {"path": str(Path(path).resolve()), "threads": threads}
    progress.begin("bench", (len(request["prompt_tokens"]) + 1) * request["rounds"], "items")
    try:
        result = run_in_child(measure, request, progress=progress)
    except ChildError as error:
        raise BundleError(
            f"The process that measures {Path(path).name} ended early ({error}).",
            hint="Is there enough memory? Compare with: edgedistill inspect BUNDLE",
        ) from error
    progress.end()
    return BenchResult.from_dict(result)


def _request(
    context: int, prompt_tokens: int | Sequence[int] | None, new_tokens: int | None, rounds: int | None
) -> dict[str, Any]:
    new = DEFAULT_NEW_TOKENS if new_tokens is None else new_tokens
    if prompt_tokens is None:
        new = min(new, context // 2) if new_tokens is None else new
        lengths = [n for n in DEFAULT_PROMPT_TOKENS if n + new <= context] or [max(1, context - new)]
    else:
        lengths = [prompt_tokens] if isinstance(prompt_tokens, int) else list(prompt_tokens)
    measured = DEFAULT_ROUNDS if rounds is None else rounds
    if min([new, measured, *lengths], default=0) < 1 or not lengths:
        raise GenerationError("prompt_tokens, new_tokens and rounds are expected to be at least 1.")
    if max(lengths) + new > context:
        raise GenerationError(
            f"{max(lengths)} prompt and {new} new tokens do not fit the context of {context}.",
            hint="Lower --prompt-tokens or --new-tokens.",
        )
    return {"prompt_tokens": lengths, "new_tokens": new, "rounds": measured}


# ---- the measuring process --------------------------------------------------------------------------------------


def measure(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Measure in this process, one item of progress a round; ``BenchResult.to_dict``."""
    bundle = Bundle.open(request["path"])
    prompt_tokens, new_tokens, rounds = request["prompt_tokens"], request["new_tokens"], request["rounds"]
    info = bundle.manifest.model
    profile = bundle.manifest.profile
    chunk = max(2, int(profile.get("context", {}).get("prefill_chunk", 256)))
    private = private_bytes()
    started = time.perf_counter()
    kind = OptimumSession if info.signature == "optimum" else DecoderSession
    session: DecoderSession | OptimumSession = kind(
        bundle, SessionConfig.from_profile(profile, threads=request["threads"])
    )
    load_s = time.perf_counter() - started
    loaded, private_now = rss_bytes(), private_bytes()
    use_huge_pages()  # what else would be going on for the first seconds
    decoder = session.decoder()
    ids = np.random.default_rng(0).integers(0, info.vocab_size, max(prompt_tokens)).tolist()

    def prefill(count: int) -> float:
        decoder.truncate(0)
        start = time.perf_counter()
        for a, b in chunk_bounds(count, chunk):
            decoder.feed(ids[a:b], exact=True, logits=b == count)
        return count / (time.perf_counter() - start)

    prefills = []
    for count in prompt_tokens:
        prefill(count)
        values = []
        for _ in range(rounds):
            values.append(prefill(count))
            progress.advance(1)
        prefills.append(Rate(tuple(values), count))
    steps: list[float] = []
    values = []
    context = min(prompt_tokens)
    for index in range(rounds + 1):
        prefill(context)
        token, laps = ids[0], []
        for _ in range(new_tokens):
            start = time.perf_counter()
            token = greedy(decoder.feed([token]))
            laps.append(time.perf_counter() - start)
        if index:  # the first one warms caches and threads up
            values.append(new_tokens / sum(laps))
            steps += laps
            progress.advance(1)
    result = BenchResult(
        bundle=bundle.path.name,
        threads=session.threads,
        bundle_bytes=bundle.size,
        load_s=load_s,
        prefill=tuple(prefills),
        decode=Rate(tuple(values), new_tokens),
        decode_context=context,
        step_p50_s=percentile(steps, 50),
        step_p95_s=percentile(steps, 95),
        kv_bytes_per_token=bundle.manifest.kv_cache.bytes_per_token,
        rss_loaded_bytes=loaded,
        peak_rss_bytes=peak_rss_bytes(),
        private_loaded_bytes=None if private is None or private_now is None else max(0, private_now - private),
    )
    return result.to_dict()
