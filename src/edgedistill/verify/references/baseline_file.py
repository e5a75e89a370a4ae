"""The baseline file: the reference's samples, so that a later verification does not need the reference.

It holds what the samples depend on (suite, settings, model, versions), the samples themselves and, for the first
samples of every prompt, the most likely tokens at each position with the total probability of all others (the tail).
The file contains its own SHA-256. A baseline that was altered, or made for another suite, model or settings, is refused
and never silently replaced.

Divergences from a baseline treat the tail as one token. By the log-sum inequality they are lower bounds of the full
ones, and so are both entropies, which are computed in the same way.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import itertools
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Self

import numpy as np

from edgedistill.atomic_file import write_whole
from edgedistill.errors import OutputError, VerifyError
from edgedistill.renamed import current_keys
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.schema import Form, limits
from edgedistill.verify.references.npz import read_arrays
from edgedistill.verify.references.top_tokens import TopTokens, top_tokens
from edgedistill.verify.sampling.protocol import slices
from edgedistill.verify.sampling.store import store_header
from edgedistill.verify.types import Drawn, ModelIdentity, Shipped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from edgedistill.progress import Progress
    from edgedistill.runtime.batch.request import SampleKey
    from edgedistill.verify.sampling.protocol import SampledModel
    from edgedistill.verify.types import Prompt, Suite

FORMAT = 1
TOP_K = 20
SCORED_SAMPLES = 4
SUFFIX = ".baseline"
_MAGIC = b"edgedistill-baseline\n"
REMAKE = "Make one on purpose with: edgedistill baseline create"
FORM = Form(
    VerifyError,
    hint=REMAKE,
    surrogates=True,
    max_bytes=256 << 20,
    before={DrawSettings: lambda value: current_keys(value, {"mode": "numerics"}, "the baseline")},
)


@dataclass(frozen=True, slots=True)
class Baseline:
    """Samples of a reference.

    Attributes:
        created: ISO 8601, UTC.
        suite_name, suite_sha256: Of the suite.
        settings: Sampling settings and seed.
        identity: The reference.
        versions: Of the packages that drew the samples.
        drawn: All samples.
        tops: Of some of them, the most likely tokens at each position.
        sha256: Of the file's content; "" before it is saved.
        shipped: Template, end tokens and sampling defaults of the reference; None in older files.
        asked: Names of the settings that the user chose instead of the reference's own.
    """

    created: str
    suite_name: str
    suite_sha256: str
    settings: DrawSettings
    identity: ModelIdentity
    versions: dict[str, str]
    drawn: dict[SampleKey, Drawn]
    tops: dict[SampleKey, TopTokens]
    sha256: str = ""
    shipped: Shipped | None = None
    asked: tuple[str, ...] = ()

    @classmethod
    def create(
        cls,
        model: SampledModel,
        suite: Suite,
        prompts: Sequence[Prompt],
        settings: DrawSettings,
        drawn: Sequence[Drawn],
        *,
        top_k: int = TOP_K,
        scored_samples: int = SCORED_SAMPLES,
        asked: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Self:
        """A baseline from samples that ``model`` drew on ``prompts``, with ``top_k`` tokens per position of the first
        ``scored_samples`` samples of each prompt (none for a model that cannot score).

        Raises:
            VerifyError: Samples are missing or of other prompts; ``top_k`` is below 1; ``model`` is a baseline.
        """
        if top_k < 1 or scored_samples < 0:
            raise VerifyError(f"top_k is {top_k} and scored_samples {scored_samples}; expected at least 1 and 0.")
        if model.identity.kind == "baseline":
            raise VerifyError("A baseline cannot be made from a baseline.", hint="Give a bundle, or hf.")
        by_key = {one.key: one for one in drawn}
        known = {prompt.id for prompt in prompts}
        if not drawn or {key[0] for key in by_key} != known:
            raise VerifyError(f"Found samples of {len({k[0] for k in by_key})} prompts; expected all {len(known)}.")
        if progress is not None:
            progress.begin("scoring the baseline", len(prompts), "items")
        tops: dict[SampleKey, TopTokens] = {}
        for prompt in prompts if model.can_score else ():
            keys = sorted(key for key in by_key if key[0] == prompt.id)[:scored_samples]
            for at in range(0, len(keys), model.score_rows):
                group = keys[at : at + model.score_rows]
                sequences = [by_key[key].token_ids for key in group]
                tops |= dict(zip(group, _score(model, prompt, sequences, settings, top_k), strict=True))
            if progress is not None:
                progress.advance(1)
        if progress is not None:
            progress.end()
        return cls(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            suite_name=suite.name,
            suite_sha256=suite.sha256,
            settings=settings,
            identity=model.identity,
            versions=store_header(suite, settings, model.identity)["versions"],
            drawn=by_key,
            tops=tops,
            shipped=model.shipped,
            asked=tuple(asked),
        )

    @property
    def samples(self) -> int:
        """Number of samples of each prompt, counted from index 0; the smallest if they differ."""
        prompts = {prompt_id for prompt_id, _ in self.drawn}
        return min(next(n for n in itertools.count() if (prompt_id, n) not in self.drawn) for prompt_id in prompts)

    def save(self, path: Path, *, force: bool = False) -> Self:
        """Write the file atomically and return this baseline with its ``sha256``.

        Raises:
            OutputError: It exists and ``force`` is not given; it cannot be written.
        """
        if path.exists() and not force:
            raise OutputError(f"{path} already exists.", hint="Name another file, or replace it with --force.")
        body = self._pack()
        digest = hashlib.sha256(body).hexdigest()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, _MAGIC + digest.encode() + b"\n" + body)
        except OSError as error:
            raise OutputError(f"The baseline cannot be written to {path}: {error.strerror}.") from error
        return dataclasses.replace(self, sha256=digest)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file; raises VerifyError if it is not a baseline, was altered, or has another format version."""
        try:
            data = FORM.read_file(path)
        except FileNotFoundError as error:
            raise VerifyError(f"The baseline {path} cannot be read: {error.strerror}.", hint=REMAKE) from error
        head, body = data[: len(_MAGIC) + 65], data[len(_MAGIC) + 65 :]
        if not head.startswith(_MAGIC) or not head.endswith(b"\n"):
            raise VerifyError(f"{path} is not an edgedistill baseline.", hint=REMAKE)
        digest = head[len(_MAGIC) : -1].decode("ascii", "replace")
        found = hashlib.sha256(body).hexdigest()
        if found != digest:
            raise VerifyError(
                f"The baseline {path} was altered: its SHA-256 is {found}, the one written in it {digest!r}.",
                hint=f"Fetch it again from where it was made. {REMAKE}",
            )
        return cls._unpack(body, digest, f"the baseline {path}")

    def check(
        self,
        *,
        suite: Suite | None = None,
        settings: DrawSettings | None = None,
        tokenizer_sha256: str | None = None,
        samples: int | None = None,
    ) -> None:
        """Raises VerifyError unless the baseline has this suite, these settings, this tokenizer and enough samples; a
        condition that is None is not checked.
        """
        if suite is not None and suite.sha256 != self.suite_sha256:
            raise VerifyError(
                f"The baseline was made for the suite `{self.suite_name}` ({self.suite_sha256[:12]}…), this run has "
                f"`{suite.name}` ({suite.sha256[:12]}…).",
                hint=REMAKE,
            )
        if settings is not None and settings != self.settings:
            stored, asked = self.settings.to_dict(), settings.to_dict()
            name = next(key for key in stored if stored[key] != asked[key])
            raise VerifyError(
                f"The baseline was drawn with {name} {stored[name]}, this run has {asked[name]}.", hint=REMAKE
            )
        own = self.identity.tokenizer_sha256  # "" of a server
        if tokenizer_sha256 is not None and own not in ("", tokenizer_sha256):
            raise VerifyError(
                f"The baseline's tokenizer is {own[:12]}…, the bundle's "
                f"{tokenizer_sha256[:12]}…; their tokens cannot be compared.",
                hint=REMAKE,
            )
        if samples is not None and samples > self.samples:
            raise VerifyError(
                f"The baseline holds {self.samples} samples per prompt; this run needs {samples}.",
                hint=f"Ask for fewer with --samples. {REMAKE}",
            )

    def summary(self) -> dict[str, Any]:
        """JSON-able description of the baseline, without the samples."""
        return {
            "created": self.created,
            "suite": {"name": self.suite_name, "sha256": self.suite_sha256},
            "settings": self.settings.to_dict(),
            "model": dataclasses.asdict(self.identity),
            "versions": self.versions,
            "prompts": len({prompt_id for prompt_id, _ in self.drawn}),
            "samples": self.samples,
            "tokens": sum(len(one.token_ids) for one in self.drawn.values()),
            "scored_samples": len(self.tops),
            "sha256": self.sha256,
        }

    def _pack(self) -> bytes:
        header = {
            "format": FORMAT,
            "created": self.created,
            "suite": [self.suite_name, self.suite_sha256],
            "settings": self.settings.to_dict(),
            "model": dataclasses.asdict(self.identity),
            "versions": self.versions,
            "drawn": [one.to_dict() for one in self.drawn.values()],
            "tops": [[*key, len(top.tail)] for key, top in self.tops.items()],
            "shipped": None if self.shipped is None else dataclasses.asdict(self.shipped),
            "asked": list(self.asked),
        }
        text = np.frombuffer(json.dumps(header, separators=(",", ":")).encode(), dtype=np.uint8)
        width = max((top.ids.shape[1] for top in self.tops.values()), default=1)
        empty = TopTokens(np.empty((0, width), np.uint32), np.empty((0, width), np.float32), np.empty(0, np.float32))
        tops = [empty, *self.tops.values()]
        stream = io.BytesIO()
        np.savez_compressed(
            stream,
            header=text,
            ids=np.concatenate([top.ids for top in tops]),
            logprobs=np.concatenate([top.logprobs for top in tops]),
            tail=np.concatenate([top.tail for top in tops]),
        )
        return stream.getvalue()

    @classmethod
    def _unpack(cls, body: bytes, digest: str, source: str) -> Self:
        arrays = read_arrays(body, source, {"header": 1, "ids": 2, "logprobs": 2, "tail": 1})
        raw = FORM.parse_object(arrays["header"].tobytes(), source)
        if raw.get("format") != FORMAT:
            raise VerifyError(f"{source}: format {raw.get('format')!r} found, {FORMAT} expected.", hint=REMAKE)
        header = FORM.decode(_Header, raw, source)
        ids, logprobs, tail = arrays["ids"], arrays["logprobs"], arrays["tail"]
        if not len(ids) == len(logprobs) == len(tail) == sum(count for _, _, count in header.tops):
            raise VerifyError(f"{source}: its arrays have different lengths.", hint=REMAKE)
        tops: dict[SampleKey, TopTokens] = {}
        at = 0
        for prompt_id, index, count in header.tops:
            tops[prompt_id, index] = TopTokens(*(a[at : at + count] for a in (ids, logprobs, tail)))
            at += count
        drawn = [Drawn.from_dict(one, source) for one in header.drawn]
        if not drawn:
            raise VerifyError(f"{source} holds no samples.", hint=REMAKE)
        return cls(
            created=header.created,
            suite_name=header.suite[0],
            suite_sha256=header.suite[1],
            settings=header.settings,
            identity=header.model,
            versions=header.versions,
            drawn={one.key: one for one in drawn},
            tops=tops,
            sha256=digest,
            shipped=header.shipped,
            asked=header.asked,
        )


@dataclass(frozen=True, slots=True)
class _Header:
    created: str
    suite: tuple[str, str]
    settings: DrawSettings
    model: ModelIdentity
    versions: dict[str, str]
    drawn: tuple[Any, ...]
    tops: tuple[tuple[str, int, Annotated[int, limits(low=0)]], ...]
    shipped: Shipped | None = None
    asked: tuple[str, ...] = ()


def _score(
    model: SampledModel, prompt: Prompt, sequences: Sequence[tuple[int, ...]], settings: DrawSettings, top_k: int
) -> list[TopTokens]:
    """The most likely tokens at every position of some samples of a prompt."""
    lengths = np.array([len(sequence) for sequence in sequences])
    parts = slices(lengths.tolist(), model.identity.vocab_size)
    pieces: list[list[TopTokens]] = [[] for _ in sequences]
    for part, logits in zip(parts, model.score(prompt, sequences, parts, thinking=settings.thinking), strict=True):
        found = top_tokens(logits, top_k)
        at = 0
        for row, count in enumerate(np.clip(lengths - part.start, 0, part.stop - part.start).tolist()):
            pieces[row].append(found.cut(at, at + count))
            at += count
    return [TopTokens.joined(own) for own in pieces]
