"""The hand-over between threads: nothing lost, nothing twice, whatever the timing."""

from __future__ import annotations

import itertools
import threading

from hypothesis import given
from hypothesis import strategies as st

from edgedistill.runtime.text.reasoning import DEFAULT_TAGS, ReasoningSplitter, opened_after, split
from edgedistill_tui.buffer import ReplyBuffer
from edgedistill_tui.engine import Chunk, Reply
from edgedistill_tui.frames import Pace, frames_per_s

CHUNKS = st.lists(
    st.builds(
        Chunk, st.sampled_from(["prefill", "reasoning", "answer", "marker"]), st.text(max_size=5), st.integers(0, 3)
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
    assert buffer.text() == "".join(chunk.text for chunk in chunks if chunk.kind != "prefill")
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
    assert (part.ttft_s, part.reasoning_s) == (10.0, 12.0)
    assert part.p50_s == part.p95_s == 2.0


@given(st.lists(st.sampled_from(["a", " b\n", "<think>", "</think>", "<thi", "nk>", "</", "<", "é"])), st.data())
def test_for_any_chunking_reasoning_answer_and_markers_reassemble_the_raw_text(
    parts: list[str], data: st.DataObject
) -> None:
    raw = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    opened = data.draw(st.sampled_from([None, DEFAULT_TAGS[0]]))
    splitter = ReasoningSplitter(opened=opened)
    buffer = ReplyBuffer(clock=lambda: 0.0)
    segments = []
    for start, stop in itertools.pairwise([0, *cuts, len(raw)]):
        segments += splitter.feed(raw[start:stop])
    for segment in segments + splitter.finish():
        buffer.append(Chunk(segment.kind, segment.text))
    assert buffer.text() == raw
    whole = split(raw, opened=opened)
    assert (buffer.text("reasoning").strip(), buffer.text("answer").strip()) == (whole.reasoning, whole.answer)
    assert opened_after(raw, opened=opened) == splitter.current


def test_drawing_slows_down_when_it_costs_too_much() -> None:
    used = iter([0.0, 0.001, 0.011, 5.0])
    pace = Pace(10.0, cpu=lambda: next(used), share=0.05)
    assert pace.wait() == 0.1
    assert abs(pace.wait() - 0.2) < 1e-9
    assert pace.wait() == 1.0


def test_fewer_frames_over_ssh() -> None:
    assert frames_per_s(0.0, {}) == 15.0
    assert frames_per_s(0.0, {"SSH_CONNECTION": "1.2.3.4 5 6.7.8.9 22"}) == 5.0
    assert frames_per_s(8.0, {"SSH_CONNECTION": "x"}) == 8.0
