"""The training loop: updates, evaluations on held-out traces, checkpoints; it can be interrupted and resumed anywhere.

Adam on the logarithms of scales and on norms in units of their size, so that one learning rate fits models of any
scale; linear warm-up, then half a cosine to 0. The best state on the held-out traces is the result.

Imports PyTorch: only functions may import this file.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch  # noqa: TID251

from edgedistill.errors import CalibrationError
from edgedistill.progress import NullProgress
from edgedistill.tune import kernels
from edgedistill.tune.options import DEFAULT_STEPS, Look, TuneOptions
from edgedistill.tune.sources import Batches
from edgedistill.tune.teacher import padded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from edgedistill.progress import Progress
    from edgedistill.tune.student import Student
    from edgedistill.tune.teacher import Teacher

    Ids = npt.NDArray[np.int64]
    Draw = Callable[[int], Sequence[Ids]]

TIMED_STEPS = 4
"""Updates after which the length of a run limited by time is fixed; the first one is slower and not counted."""
CHECKPOINT_SECONDS = 60.0
_KINDS = ("scales", "zero_points", "vectors")


@dataclass(slots=True)
class State:
    """Where the training stands; what a checkpoint holds besides tensors."""

    step: int = 0
    steps: int = 0
    best_step: int = 0
    best_kl: float = math.inf
    stale: int = 0
    tokens: int = 0
    seconds: float = 0.0
    reason: str = ""


class Trainer:
    """Trains a student on traces.

    Args:
        student, teacher: The two models.
        train, held_out: Traces to train on, and to judge by.
        options: See there.
        checkpoint: File that the state is kept in; one that is there is taken up.
        draw: Given the number of the round, the student's own replies as sequences. Called with the student's present
            arrays already written to where it reads them.
    """

    def __init__(
        self,
        student: Student,
        teacher: Teacher,
        train: Sequence[Ids],
        held_out: Sequence[Ids],
        options: TuneOptions,
        *,
        checkpoint: Path,
        draw: Draw | None = None,
    ) -> None:
        self._student, self._teacher, self._options = student, teacher, options
        self._held_out, self._checkpoint, self._draw = held_out, checkpoint, draw
        self._batches = Batches(train, options.batch_tokens, options.seed)
        self._own: tuple[int, Batches] | None = None
        rates = (options.learning_rate, options.zero_point_rate, options.norm_rate)
        kept = [(kind, rate) for kind, rate in zip(_KINDS, rates, strict=True) if rate > 0 and student.parameters(kind)]
        self._groups = [(student.parameters(kind), rate) for kind, rate in kept]
        self._leaves = [leaf for leaves, _ in self._groups for leaf in leaves]
        groups = [{"params": leaves, "lr": rate} for leaves, rate in self._groups]
        self._optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-12)
        self.state = State()
        self.looks: list[Look] = []
        self._losses: list[float] = []
        self._first = 0.0
        self._best = [leaf.detach().clone() for leaf in self._leaves]
        self.resumed = self._load()

    def first_kl(self) -> float:
        """KL on the held-out traces before the first update, in PyTorch."""
        if not self.looks:
            self._look(NullProgress())
        return self.looks[0].kl

    def run(self, progress: Progress) -> None:
        """Train to the end and leave the best state in the student. KeyboardInterrupt leaves a checkpoint."""
        state, options = self.state, self._options
        self._saved = time.monotonic()
        if not state.steps and options.minutes is None:
            state.steps = options.steps or DEFAULT_STEPS
        self.first_kl()
        self._begin(progress)
        try:
            while True:
                if self._due() and self.looks[-1].step != state.step:
                    progress.end()
                    self._look(progress)
                if state.reason:
                    break
                self._update()
                progress.advance(1)
                if not state.steps and state.step >= TIMED_STEPS and options.minutes is not None:
                    each = (state.seconds - self._first) / (TIMED_STEPS - 1)
                    state.steps = max(TIMED_STEPS + 1, round(60 * options.minutes / each))
                if time.monotonic() - self._saved > CHECKPOINT_SECONDS:
                    self._save()
        finally:
            self._save()
        progress.end()
        with torch.no_grad():
            for leaf, best in zip(self._leaves, self._best, strict=True):
                leaf.copy_(best)

    def _due(self) -> bool:
        return self.state.step % self._options.evaluate_every == 0 or self.state.step == self.state.steps

    # ---- one update -----------------------------------------------------------------------------------------

    def _update(self) -> None:
        started = time.perf_counter()
        state, options = self.state, self._options
        sequences, reverse = self._batch(state.step)
        for group, (_, rate) in zip(self._optimizer.param_groups, self._groups, strict=True):
            group["lr"] = rate * self._schedule(state.step)
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(sequences, reverse=reverse, keep=not reverse)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._leaves, options.clip)
        if not math.isfinite(float(norm)):
            raise CalibrationError(
                f"The training diverged at step {state.step + 1}: its gradient is not finite.",
                hint="Use a smaller --learning-rate.",
            )
        with uninterrupted():
            self._optimizer.step()
            state.step += 1
            state.tokens += sum(len(sequence) for sequence in sequences)
            state.seconds += time.perf_counter() - started
            self._losses.append(float(loss.detach()))
            if state.step == 1:
                self._first = state.seconds

    def _batch(self, step: int) -> tuple[list[Ids], bool]:
        """The sequences of an update, and whether they are the student's own."""
        share, options = self._options.on_policy, self._options
        own = math.floor((step + 1) * share)
        if self._draw is None or own == math.floor(step * share):
            return self._batches.at(step - own), False
        number = step // options.redraw
        if self._own is None or self._own[0] != number:
            self._own = (number, Batches(self._draw(number), options.batch_tokens, options.seed + 1 + number))
        before = math.floor(number * options.redraw * share)
        return self._own[1].at(own - 1 - before), True

    def _loss(self, sequences: Sequence[Ids], *, reverse: bool, keep: bool) -> torch.Tensor:
        """Mean KL over the positions that have a next token."""
        states = self._student.hidden(padded(sequences))
        wanted = self._teacher.hidden(sequences, keep=keep)
        student = torch.cat([states[row, : len(sequence) - 1] for row, sequence in enumerate(sequences)])
        teacher = torch.cat([own[:-1] for own in wanted])
        return kernels.divergence(
            student, self._student.head, teacher, self._teacher.head, cap=self._student.cap, reverse=reverse
        )

    def _schedule(self, step: int) -> float:
        """Factor on the learning rates. While the length is not known yet, the warm-up has not ended."""
        steps = self.state.steps or 10 * TIMED_STEPS
        warm = max(1.0, self._options.warm_up * steps)
        if step < warm:
            return (step + 1) / (warm + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, steps - warm)))

    # ---- judging --------------------------------------------------------------------------------------------

    def _look(self, progress: Progress) -> None:
        """Mean KL on the held-out traces; remembers the best."""
        state = self.state
        total = positions = 0.0
        with torch.no_grad():
            for sequence in self._held_out:
                count = len(sequence) - 1
                total += count * float(self._loss([sequence], reverse=False, keep=True))
                positions += count
        kl = total / positions
        with uninterrupted():
            self.looks.append(Look(state.step, kl))
            if kl < state.best_kl:
                state.best_kl, state.best_step, state.stale = kl, state.step, 0
                self._best = [leaf.detach().clone() for leaf in self._leaves]
            else:
                state.stale += 1
            if state.steps and state.step >= state.steps:
                state.reason = "steps"
            elif state.stale >= self._options.patience:
                state.reason = "early stop"
        if not state.reason:
            self._begin(progress)

    def _begin(self, progress: Progress) -> None:
        """A stage of progress: the updates until the next look."""
        state = self.state
        loss = f"loss {sum(self._losses) / len(self._losses):.4f}, " if self._losses else ""
        self._losses.clear()
        of = f" of {state.steps}" if state.steps else ""
        every = self._options.evaluate_every
        ahead = every - state.step % every
        if state.steps:
            ahead = min(ahead, state.steps - state.step)
        progress.begin(f"step {state.step}{of}, {loss}held-out KL {self.looks[-1].kl:.4f}", ahead, "items")

    # ---- checkpoints ----------------------------------------------------------------------------------------

    def _save(self) -> None:
        content = {
            "state": asdict(self.state),
            "looks": [asdict(look) for look in self.looks],
            "leaves": [leaf.detach() for leaf in self._leaves],
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "first": self._first,
        }
        partial = self._checkpoint.with_name(self._checkpoint.name + ".new")
        torch.save(content, partial)
        partial.replace(self._checkpoint)
        self._saved = time.monotonic()

    def _load(self) -> bool:
        if not self._checkpoint.is_file():
            return False
        content: dict[str, Any] = torch.load(self._checkpoint, weights_only=True)
        self.state = State(**content["state"])
        self.looks = [Look(**look) for look in content["looks"]]
        self._best, self._first = content["best"], content["first"]
        with torch.no_grad():
            for leaf, value in zip(self._leaves, content["leaves"], strict=True):
                leaf.copy_(value)
        self._optimizer.load_state_dict(content["optimizer"])
        return True


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits until the block is done: a state that was changed by half could not be taken up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    caught: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: caught.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if caught:
        raise KeyboardInterrupt
