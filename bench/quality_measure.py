"""Measures one quantized model against stored logits of the original, in a process of its own.

Both engines go through the same code: only where logits come from differs. A fresh process per model makes the
resident memory meaningful.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from edgedistill.comparison.quality import Text, decoding, scoring
from edgedistill.comparison.quality import texts as texts_of
from edgedistill.runtime.stats import private_bytes
from edgedistill.verify.metrics.token_divergence import TokenDivergence, concatenate, divergence, summarise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    Logits = np.ndarray[Any, np.dtype[np.float32]]
    Source = Callable[[Sequence[Text], bool], Iterator[Logits]]

CHUNK = 256


@dataclass(frozen=True, slots=True)
class Task:
    """What the process measures.

    Attributes:
        engine: ``edgedistill`` or ``llama.cpp``.
        path: Bundle directory or GGUF.
        logits: File of float32 [positions, vocabulary]: the original's, for every token of ``sequences`` but the first.
        sequences: Token ids, each at least two.
        kinds: What kind of text each of them is.
        decode: About how many positions are also decoded token by token: the same share of each sequence, from the
            front.
        threads: Of the engine; 0: its default for ours, the machine's cores for llama.cpp.
    """

    engine: str
    path: Path
    logits: Path
    vocabulary: int
    sequences: tuple[tuple[int, ...], ...]
    kinds: tuple[str, ...]
    decode: int
    threads: int


def whole(sequences: Sequence[Sequence[int]], limit: int) -> list[Text]:
    """Every position after the first token of each sequence, up to ``limit`` positions."""
    return texts_of([np.asarray(ids, dtype=np.int64) for ids in sequences], [0] * len(sequences), limit)


def shares(everything: Sequence[Text], positions: int) -> list[Text]:
    """The same share of every text, from its front, at least one position: about ``positions`` in all."""
    share = min(1.0, positions / sum(text.positions for text in everything))
    return [Text(t.ids[: t.start + max(1, round(share * t.positions))], t.start) for t in everything]


def by_kind(kinds: Sequence[str], found: Sequence[TokenDivergence]) -> dict[str, float]:
    """Mean KL over the positions of each kind, in the order in which kinds come."""
    return {
        kind: float(np.concatenate([one.kl for name, one in zip(kinds, found, strict=True) if name == kind]).mean())
        for kind in dict.fromkeys(kinds)
    }


def measure(task: Task) -> dict[str, Any]:
    """Divergences of both paths and the memory; keys as in ``quality_points.Point``."""
    longest = max(len(ids) for ids in task.sequences)
    if task.engine == "llama.cpp":
        import llama_cpp  # noqa: F401  the library is not what loading a model costs
    process = psutil.Process()
    before, before_private = process.memory_info().rss, private_bytes()
    source = (_llama_cpp if task.engine == "llama.cpp" else _ours)(task, longest)
    for _ in source(whole([task.sequences[0][:2]], 1), True):
        pass
    rss, private = process.memory_info().rss - before, private_bytes()

    everything = whole(task.sequences, sum(len(ids) for ids in task.sequences))
    prefill = _against(task, source(everything, False), everything)
    some = shares(everything, task.decode)
    decode = concatenate(_against(task, source(some, True), some))
    found = summarise(prefill)
    interval = found.kl.interval
    there = [one.kl[: text.positions] for one, text in zip(prefill, some, strict=True)]
    return {
        "positions": found.positions,
        "kl": found.kl.value,
        "kl_by_kind": by_kind(task.kinds, prefill),
        "kl_low": found.kl.value if interval is None else float(interval.low),
        "kl_high": found.kl.value if interval is None else float(interval.high),
        "p99": found.quantiles["p99"].value,
        "top1": found.top_agreement.value,
        "decode_positions": len(decode.kl),
        "kl_decode": float(decode.kl.mean()),
        "kl_prefill_there": float(np.concatenate(there).mean()),
        "rss_bytes": rss,
        "private_bytes": None if private is None or before_private is None else private - before_private,
    }


def _against(task: Task, logits: Iterator[Logits], some: Sequence[Text]) -> list[TokenDivergence]:
    """Per sequence; ``some`` are the task's sequences or their beginnings."""
    stored = np.memmap(task.logits, dtype=np.float32, mode="r").reshape(-1, task.vocabulary)
    begins = itertools.accumulate((len(ids) - 1 for ids in task.sequences), initial=0)
    rows = np.concatenate([np.arange(a, a + text.positions) for a, text in zip(begins, some, strict=False)])
    parts, at = [], 0
    for part in logits:
        parts.append(divergence(np.asarray(stored[rows[at : at + len(part)]]), np.asarray(part)))
        at += len(part)
    joined = concatenate(parts)
    bounds = list(itertools.accumulate((text.positions for text in some), initial=0))
    if at != bounds[-1]:
        raise RuntimeError(f"found logits of {at} positions, expected {bounds[-1]}")
    return [
        TokenDivergence(*(getattr(joined, name)[a:b] for name in TokenDivergence.__slots__))
        for a, b in itertools.pairwise(bounds)
    ]


def _ours(task: Task, longest: int) -> Source:
    from edgedistill.runtime.model import open_bundle
    from edgedistill.runtime.session import DecoderSession

    session = open_bundle(task.path, threads=task.threads).session
    if not isinstance(session, DecoderSession) or longest > session.info.context_length:
        raise RuntimeError(f"{task.path} cannot score sequences of {longest} tokens")
    return lambda some, steps: (decoding if steps else scoring)(session, some, chunk=CHUNK)


def _llama_cpp(task: Task, longest: int) -> Source:
    """Keys and values in float32, as ours has them: only the weights' format, and the arithmetic that it deploys with,
    is to differ."""
    import llama_cpp

    threads = task.threads or psutil.cpu_count(logical=False) or 1
    llama = llama_cpp.Llama(
        str(task.path),
        n_ctx=-(-longest // CHUNK) * CHUNK,
        n_batch=CHUNK,
        n_threads=threads,
        n_threads_batch=threads,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )

    def source(some: Sequence[Text], steps: bool) -> Iterator[Logits]:
        for text in some:
            ids = text.ids[:-1].tolist()
            llama.reset()
            for batch in [[token] for token in ids] if steps else [ids]:
                llama.eval(batch)
            yield llama.scores[: len(ids)]

    return source
