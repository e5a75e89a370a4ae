from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.runtime.text.reasoning import (
    DEFAULT_GRAMMAR,
    DEFAULT_TAGS,
    ReasoningGrammar,
    ReasoningSplitter,
    Segment,
    TagPair,
    opened_by,
    split,
)

THINK = DEFAULT_TAGS[0]
# One mark is the beginning of another, and one holds another: the hard cases for anything that decides too early.
NASTY = ReasoningGrammar(
    (TagPair("<a>", "</a>"), TagPair("<a>>", "</b>"), TagPair("x<a>y", "</c")),
    (TagPair("<b>", "</b>"), TagPair("</a>", "<a>"), TagPair("y", "")),
    repeats=True,
)
alphabets = st.lists(
    st.sampled_from(
        ["<", ">", "/", "a", "x", "y", "b", "c", "é", "\n", "<a>", "</a>", "<a>>", "</b>", "<b>", "x<a>y", "</c"]
    ),
    max_size=40,
).map("".join)


def merged(segments: list[Segment]) -> list[Segment]:
    """Neighbouring segments of one kind joined: what does not depend on the chunking. Markers stay apart."""
    out: list[Segment] = []
    for segment in segments:
        if out and segment.kind != "marker" and out[-1].kind == segment.kind:
            out[-1] = Segment(segment.kind, out[-1].text + segment.text)
        else:
            out.append(segment)
    return out


def run(text: str, cuts: list[int], grammar: ReasoningGrammar, opened: TagPair | None) -> list[Segment]:
    splitter = ReasoningSplitter(grammar, opened=opened)
    bounds = [0, *sorted(c % (len(text) + 1) for c in cuts), len(text)]
    segments = [s for a, b in itertools.pairwise(bounds) for s in splitter.feed(text[a:b])]
    return segments + splitter.finish()


@given(alphabets, st.lists(st.integers(0, 200), max_size=12), st.sampled_from([None, *NASTY.tags]))
def test_any_chunking_reassembles_the_text_and_splits_it_alike(
    text: str, cuts: list[int], opened: TagPair | None
) -> None:
    segments = run(text, cuts, NASTY, opened)
    assert "".join(s.text for s in segments) == text
    assert all(s.text for s in segments)
    assert merged(segments) == merged(run(text, [], NASTY, opened))
    assert merged(segments) == merged(run(text, list(range(len(text))), NASTY, opened))


@given(st.lists(st.sampled_from(["<think>", "</think>", "think", "<", ">", "so", " ", "ü"]), max_size=30).map("".join))
def test_default_tags_reassemble(text: str) -> None:
    assert "".join(s.text for s in run(text, list(range(len(text))), DEFAULT_GRAMMAR, None)) == text


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "answer", "closed"),
    [
        ("<think>2+2 is 4</think>\n\n4", None, "2+2 is 4", "4", True),
        ("2+2 is 4\n</think>\n\n4", THINK, "2+2 is 4", "4", True),  # the template has written the opening tag
        ("<think>\n2+2 is 4\n</think>\n\n4", THINK, "2+2 is 4", "4", True),  # and the model writes it again
        ("\n<think>never ends", THINK, "never ends", "", False),
        ("<thi", THINK, "<thi", "", False),
        ("so <think>a</think>b", THINK, "so <think>a", "b", True),
        ("<think><think>a</think>b", THINK, "<think>a", "b", True),
        ("<think>never ends", None, "never ends", "", False),
        ("never ends", THINK, "never ends", "", False),
        ("no tags at all", None, "", "no tags at all", True),
        ("<think>a</think>b<think>c</think>d", None, "a", "b<think>c</think>d", True),  # believed at the start only
        ("The tag <think> opens a block. 42", None, "", "The tag <think> opens a block. 42", True),
        ("\n <think>a</think>b", None, "a", "b", True),
        ("<think>cut in the mark</thi", None, "cut in the mark</thi", "", False),
        ("<think>a<think>b</think>c", None, "a<think>b", "c", True),  # inside reasoning an opening tag is text
        ("an </think> answer", None, "", "an </think> answer", True),
        ("<thinking>x</think></thinking>y", None, "x</think>", "y", True),
        ("1 < 2 and <thin air", None, "", "1 < 2 and <thin air", True),
    ],
)
def test_split(text: str, opened: TagPair | None, reasoning: str, answer: str, closed: bool) -> None:
    got = split(text, opened=opened)
    assert (got.reasoning, got.answer, got.closed) == (reasoning, answer, closed)


def test_text_is_not_held_back_longer_than_needed() -> None:
    splitter = ReasoningSplitter()
    assert splitter.feed("<think") == []
    assert splitter.feed(">go <") == [Segment("marker", "<think>"), Segment("reasoning", "go ")]
    assert splitter.in_reasoning
    assert splitter.feed("/thi") == []
    assert splitter.feed("s") == [Segment("reasoning", "</this")]
    splitter = ReasoningSplitter()
    assert splitter.feed("<thi") == []
    assert splitter.feed("s") == [Segment("answer", "<this")]
    assert splitter.feed(" <think") == [Segment("answer", " <think")]


@given(alphabets, st.integers(0, 200), st.sampled_from([None, *NASTY.tags]))
def test_what_is_known_of_a_reply_is_not_given_out_again(text: str, cut: int, opened: TagPair | None) -> None:
    cut %= len(text) + 1
    splitter = ReasoningSplitter(NASTY, opened=opened)
    splitter.resume(text[:cut])
    assert "".join(s.text for s in splitter.feed(text[cut:]) + splitter.finish()) == text[cut:]
    whole = ReasoningSplitter(NASTY, opened=opened)
    whole.feed(text)
    whole.finish()
    assert (splitter.current, splitter.closed) == (whole.current, whole.closed)


def test_opened_by_prompt() -> None:
    assert opened_by("<|im_start|>assistant\n<think>\n") == THINK
    assert opened_by("<|im_start|>assistant\n<think>\n\n</think>\n\n") is None
    assert opened_by("tell me about <think> tags") is None
    custom = TagPair("<<R", "R>>")
    assert opened_by("go <<R ", ReasoningGrammar((custom,))) == custom


def test_tag_pairs_are_checked() -> None:
    with pytest.raises(ValueError, match="two different"):
        TagPair("<x>", "<x>")
    with pytest.raises(ValueError, match="closing mark"):
        ReasoningGrammar((TagPair("<x>", ""),))
