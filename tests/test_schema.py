"""Documents read by their schema: bounds, sizes, depth, what a message says."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pytest

from edgedistill.errors import BundleError
from edgedistill.schema import Form, limits


class Extra(TypedDict, total=False):
    tokens: Annotated[int, limits(low=0)]


@dataclass(frozen=True)
class Leaf:
    name: str = field(metadata=limits(pattern="[a-z]+", words="small letters"))
    size: int = field(default=1, metadata=limits(low=1, high=8))


@dataclass(frozen=True)
class Tree:
    kind: Literal["a", "b"]
    leaves: tuple[Leaf, ...] = field(default=(), metadata=limits(most=2))
    pair: tuple[int, float] = (0, 0.0)
    by_step: dict[int, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict, metadata=limits(schema=Extra))
    note: str | None = None


LOOSE = Form(BundleError, hint="Copy it again.", max_bytes=1000)


def test_a_document_becomes_what_its_classes_say() -> None:
    value = {
        "kind": "b",
        "leaves": [{"name": "x"}],
        "pair": [1, 2],
        "by_step": {"3": 0.5},
        "extra": {"tokens": 4, "more": [1]},
    }
    tree = LOOSE.decode(Tree, value | {"unknown": 1}, "tree.json")
    assert tree == Tree("b", (Leaf("x", 1),), (1, 2.0), {3: 0.5}, {"tokens": 4, "more": [1]})
    assert type(tree.pair[1]) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "c"}, r"`kind` is 'c'; expected one of 'a', 'b'"),
        ({"leaves": [{"name": "x"}] * 3}, r"`leaves` has 3 entries; expected at most 2"),
        ({"leaves": [{"name": "X"}]}, r"`leaves\[0\]\.name` is 'X'; expected small letters"),
        ({"leaves": [{"name": "x", "size": 9}]}, r"`leaves\[0\]\.size` is 9; .*at most 8"),
        ({"leaves": [{}]}, r"key `leaves\[0\]\.name` is missing"),
        ({"pair": [1]}, r"`pair` has 1 entries; expected 2"),
        ({"pair": [2**80, 0]}, r"`pair\[0\]` is 'a number of 25 digits'"),
        ({"pair": [0, 10**400]}, r"`pair\[1\]` is inf; expected a finite number"),
        ({"by_step": {"x": 1}}, r"`by_step` is 'x'; expected whole numbers as keys"),
        ({"extra": {"tokens": -1}}, r"`extra\.tokens` is -1"),
        (
            {"extra": {"deep": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}},
            "nested more than 32",
        ),
        ({"note": "\ud800"}, r"`note` holds half a surrogate pair"),
        ({"note": 1}, r"`note` is 1; expected a text"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        LOOSE.decode(Tree, {"kind": "a", **change}, "tree.json")
    assert str(caught.value).startswith("tree.json: ")


@pytest.mark.parametrize("text", ["", "NaN", "[Infinity]", "[" * 5000, "1" * 900 + "e", '{"a": 1', " " * 1001, b"\xff"])
def test_what_is_no_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(BundleError, match=r"^tree\.json"):
        LOOSE.parse(text, "tree.json")


def test_files_are_read_within_their_bound(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(1001))
    with pytest.raises(BundleError, match="more than"):
        LOOSE.read_file(tmp_path / "large")
    with pytest.raises(BundleError, match="not a regular file"):
        LOOSE.read_file(tmp_path)
    with pytest.raises(FileNotFoundError):
        LOOSE.read_file(tmp_path / "none")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
        with pytest.raises(BundleError, match="not a regular file"):
            LOOSE.read_file(tmp_path / "pipe")
