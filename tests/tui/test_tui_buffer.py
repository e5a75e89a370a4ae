"""The hand-over between threads: nothing lost, nothing twice, whatever the timing."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from edgedistill_tui.buffer import ReplyBuffer
from edgedistill_tui.engine import Chunk, Reply

CHUNKS = st.lists(
    st.builds(
        Chunk, st.sampled_from(["prefill", "reasoning", "answer"]), st.text(max_size=5), st.integers(0, 3)
    )
)  # fmt: skip


@given(CHUNKS, st.integers(1, 5))
def test_drained_text_is_the_text_that_was_appended(chunks: list[Chunk], every: int) -> None:
    buffer = ReplyBuffer(clock=lambda: 0.0)
    drained = []
    for i, chunk in enumerate(chunks):
        buffer.append(chunk)
        if i % every == 0:
            drained.append(buffer.drain())
    buffer.finish(Reply("", "", "stop"))
    drained.append(buffer.drain())
    for kind in ("reasoning", "answer"):
        expected = "".join(chunk.text for chunk in chunks if chunk.kind == kind)
        assert "".join(getattr(part, kind) for part in drained) == expected
    assert drained[-1].tokens == sum(chunk.tokens for chunk in chunks if chunk.kind != "prefill")
    assert [part.reply is not None for part in drained] == [False] * (len(drained) - 1) + [True]


def test_a_thread_appends_while_another_drains() -> None:
    buffer = ReplyBuffer()
    count = 20_000

    def generate() -> None:
        for i in range(count):
            buffer.append(Chunk("answer", f"{i} "))
        buffer.finish(Reply("", "", "stop"))

    thread = threading.Thread(target=generate)
    thread.start()
    text = ""
    while True:
        part = buffer.drain()
        text += part.answer
        if part.reply is not None:
            break
    thread.join()
    assert text.split() == [str(i) for i in range(count)]


def test_speed_counts_from_the_first_token() -> None:
    now = [0.0]
    buffer = ReplyBuffer(clock=lambda: now[0])
    now[0] = 10.0
    buffer.append(Chunk("reasoning", "a"))
    now[0] = 12.0
    buffer.append(Chunk("answer", "b"))
    part = buffer.drain()
    assert part.tokens_per_s == 0.5
    assert part.seconds == 12.0
    assert part.reasoning_tokens == 1
