"""Traces: sequences of token ids that stand for what a model sees and says; plain data, and its file.

Calibration, tuning and comparison all work on traces. The file is JSONL: a header that says whose tokens these are,
then one sequence a line.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.atomic_file import replacing
from edgedistill.errors import CalibrationError
from edgedistill.schema import Form, limits

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    Ids = npt.NDArray[np.int64]

FORMAT = "edgedistill-traces"
VERSION = 1


@dataclass(frozen=True)
class Traces:
    """Token sequences of one tokenizer.

    Attributes:
        sequences: int64 [n] each, at least two tokens: prompt and reply.
        prompt_tokens: How many of them, per sequence, belong to the prompt (0: unknown, the whole sequence is text).
        tokenizer_sha256: SHA-256 of the tokenizer.json whose ids these are.
        origin: Where they come from, in words.
    """

    sequences: tuple[Ids, ...]
    prompt_tokens: tuple[int, ...]
    tokenizer_sha256: str
    origin: str

    @property
    def tokens(self) -> int:
        """Tokens of all sequences together."""
        return sum(len(sequence) for sequence in self.sequences)

    @cached_property
    def sha256(self) -> str:
        """Hash of the ids and of where replies begin."""
        digest = hashlib.sha256()
        for sequence, prompt in zip(self.sequences, self.prompt_tokens, strict=True):
            digest.update(np.array([len(sequence), prompt], np.int64).tobytes())
            digest.update(np.ascontiguousarray(sequence, np.int64).tobytes())
        return digest.hexdigest()

    def head(self, tokens: int) -> Traces:
        """As many whole sequences from the front as hold about ``tokens`` tokens, at least one."""
        count, total = 0, 0
        while count < len(self.sequences) and (count == 0 or total + len(self.sequences[count]) <= tokens):
            total += len(self.sequences[count])
            count += 1
        return self._part(range(count))

    def split(self, held_out: float = 0.1) -> tuple[Traces, Traces]:
        """(the rest, every 1/``held_out``-th sequence): for fitting and for judging. Both have at least one.

        Raises:
            CalibrationError: Fewer than two sequences.
        """
        if len(self.sequences) < 2:
            raise CalibrationError(
                "There is only one calibration sequence; expected at least two, one to judge by.",
                hint="Give more text, or let the model generate its own traces.",
            )
        step = max(2, round(1 / held_out))
        kept = [i for i in range(len(self.sequences)) if i % step != step - 1]
        out = [i for i in range(len(self.sequences)) if i % step == step - 1] or [kept.pop()]
        return self._part(kept), self._part(out)

    def _part(self, indices: Any) -> Traces:
        return Traces(
            tuple(self.sequences[i] for i in indices),
            tuple(self.prompt_tokens[i] for i in indices),
            self.tokenizer_sha256,
            self.origin,
        )

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        header = {"format": FORMAT, "version": VERSION, "tokenizer": self.tokenizer_sha256, "origin": self.origin}
        header |= {"sequences": len(self.sequences), "sha256": self.sha256}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, "w") as stream:
            stream.write(json.dumps(header) + "\n")
            for sequence, prompt in zip(self.sequences, self.prompt_tokens, strict=True):
                stream.write(json.dumps({"prompt_tokens": prompt, "ids": sequence.tolist()}) + "\n")

    @classmethod
    def load(cls, path: Path, *, tokenizer_sha256: str, vocab_size: int) -> Traces:
        """Read what ``save`` wrote.

        Raises:
            CalibrationError: Another tokenizer, ids out of range, a torn or altered file.
        """
        try:
            lines = _FORM.read_text(path).splitlines()
        except FileNotFoundError as error:
            raise CalibrationError(f"{path.name} cannot be read as traces ({error}).", hint=_FORM.hint) from error
        header = _FORM.parse_object(lines[0] if lines else "", f"{path.name}, line 1")
        entries = [
            _FORM.decode(_Entry, _FORM.parse(line, f"{path.name}, line {number}"), f"{path.name}, line {number}")
            for number, line in enumerate(lines[1:], 2)
        ]
        sequences = tuple(np.array(entry.ids, dtype=np.int64) for entry in entries)
        prompts = tuple(entry.prompt_tokens for entry in entries)
        found = str(header.get("tokenizer"))
        if found != tokenizer_sha256:
            raise CalibrationError(
                f"{path.name} holds tokens of another tokenizer ({found[:12]}; this model's: {tokenizer_sha256[:12]}).",
                hint="Use traces of this model, or give text instead of tokens.",
            )
        traces = cls(sequences, prompts, found, str(header.get("origin", path.name)))
        if traces.sha256 != header.get("sha256"):
            raise CalibrationError(f"{path.name} was altered or is torn.", hint="Delete it; traces can be made again.")
        check_ids(traces, vocab_size, path.name)
        return traces


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the file."""

    prompt_tokens: int = field(metadata=limits(low=0))
    ids: tuple[int, ...] = field(metadata=limits(low=0))


_FORM = Form(CalibrationError, hint="Delete it; traces can be made again.", max_bytes=1 << 30)


def is_traces_file(path: Path) -> bool:
    """Whether the first line of ``path`` is a header of this format."""
    try:
        with path.open(encoding="utf-8") as stream:
            header = json.loads(stream.readline(1 << 20))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(header, dict) and header.get("format") == FORMAT


def check_ids(traces: Traces, vocab_size: int, name: str) -> None:
    """Raises CalibrationError where a sequence is too short to predict anything or has ids the model does not know."""
    if not traces.sequences:
        raise CalibrationError(f"{name} holds no sequences; expected at least one.", hint="Give more text.")
    for number, sequence in enumerate(traces.sequences, 1):
        if len(sequence) < 2:
            raise CalibrationError(f"{name}: sequence {number} has {len(sequence)} tokens; expected at least 2.")
        if int(sequence.min()) < 0 or int(sequence.max()) >= vocab_size:
            raise CalibrationError(
                f"{name}: sequence {number} has the token {int(sequence.max())}; "
                f"this model knows 0 to {vocab_size - 1}.",
                hint="The tokens were made with another tokenizer: give text instead.",
            )
