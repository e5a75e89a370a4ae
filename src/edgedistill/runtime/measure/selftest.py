"""Which numerical properties hold on this machine, and how far apart the decode paths are.

Kernels differ between CPUs and versions of ONNX Runtime, so nothing is taken for granted: every property that exact
mode and batches build on is checked bit for bit on the bundle itself, over a text that the model wrote. The
properties that need not hold are measured: Kullback-Leibler divergence and agreement of the most likely token.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgedistill.bundle.bundle import Bundle
from edgedistill.json_codec import Record
from edgedistill.progress import NullProgress, Progress
from edgedistill.runtime.model import Model
from edgedistill.runtime.session import DecoderSession, SessionConfig
from edgedistill.runtime.settings import GenerationSettings

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from edgedistill.runtime.optimum_session import OptimumSession

    Session = DecoderSession | OptimumSession
    Logits = npt.NDArray[np.float32]

PROMPT = "What is 12 + 30? Then explain in a few sentences how you found it."
TEXT_TOKENS = 96
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class PropertyCheck:
    """One property.

    Attributes:
        name: What is compared, such as ``run to run``.
        held: True: bit-identical; False: not; None: could not be checked here.
        required: Exact mode and batches rely on it.
        detail: One sentence for people.
        max_difference: Largest absolute difference of a logit.
        differing: Share of positions with any differing logit.
    """

    name: str
    held: bool | None
    required: bool
    detail: str
    max_difference: float = 0.0
    differing: float = 0.0


@dataclass(frozen=True, slots=True)
class Divergence:
    """Distance between two paths over the same tokens: KL(first || second) in nats, agreement of the top token."""

    name: str
    positions: int
    mean_kl: float
    p99_kl: float
    max_kl: float
    top1_agreement: float


@dataclass(frozen=True, slots=True)
class SelfTestResult(Record):
    """Outcome for one bundle; ``passed``: every required property that could be checked holds."""

    DERIVED = ("passed",)

    bundle: str
    threads: int
    tokens: int
    checks: tuple[PropertyCheck, ...]
    divergences: tuple[Divergence, ...]

    @property
    def passed(self) -> bool:
        """False if a required property does not hold."""
        return all(check.held is not False for check in self.checks if check.required)


def selftest(path: str | Path, *, threads: int | None = None, progress: Progress | None = None) -> SelfTestResult:
    """Check the bundle at ``path`` on this machine; takes about a minute for a model of 135 million parameters.

    Raises:
        BundleError: No bundle, or a damaged one.
    """
    progress = progress or NullProgress()
    bundle = Bundle.open(path)
    with Model(bundle, threads=threads) as model:
        return _SelfTest(model, progress).run()


class _SelfTest:
    """One run: a text, its reference logits by prefill, and everything compared with them."""

    def __init__(self, model: Model, progress: Progress) -> None:
        self._model = model
        self._session = model.session
        self._progress = progress
        self._checks: list[PropertyCheck] = []
        self._divergences: list[Divergence] = []
        self._ids: list[int] = []

    def run(self) -> SelfTestResult:
        batched = isinstance(self._session, DecoderSession)
        self._progress.begin("self-test", 9 if batched else 7, "items")
        self._ids = self._text()
        prefill = _prefill(self._session, self._ids)
        self._check("run to run", prefill, _prefill(self._session, self._ids), "two prefills")
        self._other_sessions(prefill)
        self._chunkings(prefill)
        if isinstance(self._session, DecoderSession):
            self._batches(self._session, prefill)
        exact = _steps(self._session, self._ids, exact=True)
        self._check("exact steps against prefill", prefill, exact, "what exact numerics promise")
        fast = _steps(self._session, self._ids, exact=False)
        name = "one-token steps against prefill"
        self._check(name, prefill, fast, "what fast numerics decode with", required=False)
        self._divergences.append(divergence("prefill against one-token steps", prefill, fast))
        if isinstance(self._session, DecoderSession):
            batch = _batched_steps(self._session, self._ids)
            self._check("one-token steps alone and in a batch", fast, batch, "two rows", required=False)
            self._divergences.append(divergence("one-token steps alone and in a batch", fast, batch))
        self._greedy()
        self._progress.end()
        return SelfTestResult(
            bundle=self._model.bundle.path.name,
            threads=self._session.threads,
            tokens=len(self._ids),
            checks=tuple(self._checks),
            divergences=tuple(self._divergences),
        )

    def _text(self) -> list[int]:
        """Prompt and greedy continuation: the distribution that matters is that of the model's own text."""
        prompt = self._model.encode(self._model.render(PROMPT))
        room = self._session.info.context_length
        prompt = prompt[: max(2, room // 2)]
        settings = GenerationSettings(max_new_tokens=min(TEXT_TOKENS, room - len(prompt) - 1), ignore_eos=True)
        got = self._model.generate(PROMPT, settings=settings) if len(prompt) < room // 2 else None
        return (prompt + list(got.tokens if got else ()))[: room - 1]

    def _other_sessions(self, prefill: Logits) -> None:
        config = self._session.config
        again = self._open(config)
        self._check("new session", prefill, _prefill(again, self._ids), "the bundle loaded again")
        del again
        if self._session.threads == 1:
            detail = "this session has one thread: nothing to compare"
            self._add(PropertyCheck("one thread and several", None, True, detail))
        else:
            single = self._open(dataclasses.replace(config, threads=1))
            detail = f"1 thread and {self._session.threads}"
            self._check("one thread and several", prefill, _prefill(single, self._ids), detail)

    def _open(self, config: SessionConfig) -> Session:
        return type(self._session)(self._model.bundle, config)

    def _chunkings(self, prefill: Logits) -> None:
        """Chunks of two, of odd widths, and of one more than a block: where kernels change."""
        sizes = [size for size in (2, 7, 33, 65) if size < len(self._ids)]
        parts = [_prefill(self._session, self._ids, size) for size in sizes]
        worst = max(parts, key=lambda part: float(np.abs(part - prefill).max()))
        self._check("any chunking", prefill, worst, f"prefill in chunks of {', '.join(map(str, sizes))}")

    def _batches(self, session: DecoderSession, prefill: Logits) -> None:
        """The text beside shorter ones: unequal lengths, padding, several pasts."""
        ids = self._ids
        rows = [ids, ids[: len(ids) // 2], ids[: len(ids) // 3 + 1]]
        padded = np.zeros((3, len(ids)), dtype=np.int64)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = row
        out = [np.empty((len(row), prefill.shape[1]), dtype=np.float32) for row in rows]
        for part in session.decoder(3).score(padded, [len(row) for row in rows], chunk=40):
            for row, column, logits in zip(part.rows, part.columns, part.logits, strict=True):
                out[row][column] = logits
        expected = np.concatenate([prefill[: len(row)] for row in rows])
        self._check("batch and single", expected, np.concatenate(out), "three texts of unequal length at once")

    def _greedy(self) -> None:
        """Do both modes write the same text?"""
        settings = GenerationSettings(max_new_tokens=48, ignore_eos=True)
        fast = self._model.generate(PROMPT, settings=settings, numerics="fast").tokens
        exact = self._model.generate(PROMPT, settings=settings, numerics="exact").tokens
        same = next((i for i, (a, b) in enumerate(zip(fast, exact, strict=False)) if a != b), None)
        detail = f"greedy texts of {len(fast)} tokens " + ("agree" if same is None else f"part at token {same}")
        share = sum(a != b for a, b in zip(fast, exact, strict=False)) / max(1, len(fast))
        self._add(PropertyCheck("fast and exact numerics", fast == exact, False, detail, differing=share))

    def _check(self, name: str, expected: Logits, found: Logits, detail: str, *, required: bool = True) -> None:
        difference = np.abs(expected - found)
        rows = (expected != found).any(axis=1)
        held = not rows.any()
        self._add(PropertyCheck(name, held, required, detail, float(difference.max()), float(rows.mean())))

    def _add(self, check: PropertyCheck) -> None:
        self._checks.append(check)
        self._progress.advance(1)


def divergence(name: str, first: Logits, second: Logits) -> Divergence:
    """KL(first || second), summed over the whole vocabulary, and top-1 agreement of two arrays of logits [n, V]."""
    kl = np.concatenate([_kl(first[i : i + 32], second[i : i + 32]) for i in range(0, len(first), 32)])
    return Divergence(
        name=name,
        positions=len(kl),
        mean_kl=float(kl.mean()),
        p99_kl=float(np.percentile(kl, 99)),
        max_kl=float(kl.max()),
        top1_agreement=float((first.argmax(axis=1) == second.argmax(axis=1)).mean()),
    )


def _kl(first: Logits, second: Logits) -> npt.NDArray[np.float64]:
    p, q = _log_softmax(first), _log_softmax(second)
    kl: npt.NDArray[np.float64] = (np.exp(p) * (p - q)).sum(axis=1)
    return kl.clip(min=0.0)


def _log_softmax(logits: Logits) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    out: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return out


def _prefill(session: Session, ids: list[int], chunk: int = _CHUNK) -> Logits:
    """Logits after every token, float32 [n, V]."""
    parts = session.decoder().score(np.asarray([ids], dtype=np.int64), chunk=chunk)
    return np.concatenate([part.logits.copy() for part in parts])


def _steps(session: Session, ids: list[int], *, exact: bool) -> Logits:
    decoder = session.decoder()
    return np.stack([decoder.feed([token], exact=exact).copy() for token in ids])


def _batched_steps(session: DecoderSession, ids: list[int]) -> Logits:
    """Logits of one-token steps with a second row of other tokens beside the text."""
    decoder = session.decoder(2)
    other = ids[::-1]
    return np.stack([decoder.step(np.asarray([[a], [b]]))[0, 0].copy() for a, b in zip(ids, other, strict=True)])
