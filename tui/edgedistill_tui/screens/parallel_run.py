"""One reply by several trajectories that vote, like a plain reply, but with all trajectories on screen and stored."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgedistill_tui.engine import Chunk, Reply
from edgedistill_tui.lanes import Lanes
from edgedistill_tui.screens.reply_run import ReplyRun

if TYPE_CHECKING:
    from edgedistill.trajectories import TrajectoryEvent, TrajectoryResult
    from edgedistill_tui.buffer import Drained


class ParallelRun(ReplyRun):
    """Runs the trajectories of one reply into its message and view."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._lanes = Lanes()

    def _generate(self) -> None:
        try:
            result = self._engine.trajectories(self._request, cancel=self._cancel, on_event=self._take)
            self._buffer.finish(_reply(result, self._engine.memory()))
        except BaseException as error:
            self._buffer.fail(error)

    def _take(self, event: TrajectoryEvent) -> None:
        self._lanes.add(event)
        # The buffer has counts and times; the texts are in ``lanes``.
        if event.kind == "prefill":
            self._buffer.append(Chunk("prefill", "", event.done, event.total))
        elif event.kind in ("reasoning", "answer", "marker"):
            self._buffer.append(Chunk("marker", "", event.tokens))

    async def _draw(self, new: Drained) -> None:
        live = new.reply is None and new.error is None
        await self.view.show_trajectories(self._lanes.record(), live=live)
        if live:
            # The tokens of a step arrive together, so there is no latency per token.
            self._strip.live(replace(new, p50_s=0.0, p95_s=0.0), self._engine.memory())

    def _complete(self, new: Drained) -> None:
        message, reply = self.message, new.reply
        self.take_text()
        if reply is None:
            message.finish_reason = "cancelled"
            return
        message.stats = dict(reply.stats) | {"parallel": self._lanes.record()}
        message.content, message.reasoning, message.raw = reply.answer, reply.reasoning, reply.answer
        message.finish_reason = reply.finish_reason
        self.note = self._lanes.note
        if reply.reasoning:
            self.view.add_reasoning(reply.reasoning)
            self.view.reasoning.settle(int(reply.stats["reasoning_tokens"]))

    def take_text(self) -> None:
        """Put what was written so far into the message."""
        self.message.stats["parallel"] = self._lanes.record()
        self.message.dirty = True


def _reply(result: TrajectoryResult, memory: int) -> Reply:
    """The final answer, with the statistics of the whole run under the names of a plain reply."""
    stats = result.stats.to_dict()
    thought = 0
    if result.decided_by == "deliberation" and result.deliberation is not None:
        thought = result.deliberation.stats.reasoning_tokens
    elif result.winner is not None:
        thought = result.trajectories[result.winner].reasoning_tokens
    longest = max((len(one.tokens) for one in result.trajectories), default=0)
    stats |= {
        "new_tokens": result.stats.trajectory_tokens + result.stats.pass_tokens,
        "reasoning_tokens": thought,
        "prefill_tps": result.stats.prompt_tokens / result.stats.prefill_s if result.stats.prefill_s else 0.0,
        "kv_tokens": result.stats.prompt_tokens + longest,
        "rss_bytes": memory,
        "decode_s": result.stats.decode_s + result.stats.pass_s,
    }
    return Reply(result.reasoning, result.answer, "cancelled" if result.cancelled else "stop", stats)
