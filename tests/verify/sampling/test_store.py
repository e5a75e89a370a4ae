"""Samples on disk: nothing lost, nothing twice, whatever ended the run; nothing of another run taken for this one's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Never, cast

import pytest
from engine_support import SETTINGS, fake_drawn
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.errors import OutputError, VerifyError
from edgedistill.verify.sampling.protocol import SampledModel
from edgedistill.verify.sampling.store import SampleStore, collect, store_header, store_path
from edgedistill.verify.suites.registry import load_suite
from edgedistill.verify.types import ModelIdentity

IDENTITY = ModelIdentity("bundle", "model", "a" * 64, "b" * 64, 768)
HEADER = store_header(load_suite("arithmetic"), SETTINGS, IDENTITY)


class FakeModel:
    """Gives out samples and breaks off after some."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.asked: list[Any] = []

    def draw(self, prompts, samples, settings, *, done=(), progress=None):
        for prompt in prompts:
            for index in range(samples):
                if (prompt.id, index) not in done:
                    if self.left == 0:
                        raise KeyboardInterrupt
                    self.left -= 1
                    self.asked.append((prompt.id, index))
                    yield fake_drawn(prompt.id, index)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "x.samples"


def test_what_was_appended_comes_back(path) -> None:
    odd = fake_drawn("p", 0, text="line\nbreak, 数学, \ud800 and \u2028")
    with SampleStore.open(path, HEADER) as store:
        store.append(odd)
        store.append(fake_drawn("p", 1))
    with SampleStore.open(path, HEADER) as store:
        assert store.drawn == {("p", 0): odd, ("p", 1): fake_drawn("p", 1)}
        with pytest.raises(ValueError, match="already"):
            store.append(odd)


@given(st.integers(0, 10_000), st.booleans())
def test_any_torn_end_costs_the_last_sample_at_most(tmp_path_factory, cut, zeros) -> None:
    path = tmp_path_factory.mktemp("torn") / "x.samples"
    with SampleStore.open(path, HEADER) as store:
        ends = [path.stat().st_size]
        for index in range(3):
            store.append(fake_drawn("p", index))
            ends.append(path.stat().st_size)
    data = path.read_bytes()
    size = ends[0] + cut % (len(data) - ends[0] + 1)
    path.write_bytes(data[:size] + b"\0" * (7 * zeros))
    whole = sum(end <= size for end in ends[1:])
    with SampleStore.open(path, HEADER) as store:
        assert sorted(store.drawn) == [("p", index) for index in range(whole)]
        for index in range(whole, 3):
            store.append(fake_drawn("p", index))
    assert path.read_bytes() == data


def test_damage_in_the_middle_is_refused(path) -> None:
    with SampleStore.open(path, HEADER) as store:
        for index in range(3):
            store.append(fake_drawn("p", index))
    data = path.read_bytes()
    lines = data.splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b'"4"', b'"5"') + lines[2] + lines[3])
    with pytest.raises(VerifyError, match="line 2 does not match its checksum"):
        SampleStore.open(path, HEADER)
    path.write_bytes(lines[0] + lines[1] + lines[1])
    with pytest.raises(VerifyError, match="line 3 repeats sample 0 of `p`"):
        SampleStore.open(path, HEADER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": SETTINGS.replace(seed=8).to_dict()}, "settings.seed is 7 there and 8 now"),
        ({"suite": "c" * 64}, "suite is"),
        (
            {"model": {**HEADER["model"], "sha256": "d" * 64}},
            "model.sha256 is aaaaaaaaaaaa… there and dddddddddddd… now",
        ),
        ({"what": "vote-2"}, "what is samples there and vote-2 now"),
        ({"versions": {**HEADER["versions"], "numpy": "0.1"}}, "versions.numpy"),
    ],
)
def test_samples_of_another_run_are_refused(path, change, message) -> None:
    with SampleStore.open(path, HEADER) as store:
        store.append(fake_drawn("p", 0))
    before = path.read_bytes()
    with pytest.raises(VerifyError, match=message):
        SampleStore.open(path, {**HEADER, **change})
    assert path.read_bytes() == before
    assert store_path(path.parent, HEADER, "m") != store_path(path.parent, {**HEADER, **change}, "m")


@pytest.mark.parametrize(
    ("name", "value"),
    [("kind", "fine"), ("answer", 4), ("tokens", "many"), ("correct", "yes"), ("index", 1.0), ("repetition", None)],
)
def test_records_that_are_no_samples_are_refused(path, name, value) -> None:
    """A checksum says nothing about what somebody wrote with it."""
    record = fake_drawn("p", 0).to_dict()
    record["sample"][name] = value
    with SampleStore.open(path, HEADER) as store:
        store._write(record)
    with pytest.raises(VerifyError, match=rf"line 2: .*{name}.* is"):
        SampleStore.open(path, HEADER)


def test_a_file_that_is_no_store_is_left_alone(path) -> None:
    path.parent.mkdir()
    path.write_text("my notes\nand more\n")
    with pytest.raises(VerifyError, match="line 1"):
        SampleStore.open(path, HEADER)
    assert path.read_text() == "my notes\nand more\n"


def test_a_single_foreign_line_is_left_alone(path) -> None:
    path.parent.mkdir()
    path.write_text("my notes")
    with pytest.raises(VerifyError, match="not a store of samples"):
        SampleStore.open(path, HEADER)
    assert path.read_text() == "my notes"


def test_two_runs_cannot_share_a_store(path) -> None:
    with SampleStore.open(path, HEADER), pytest.raises(VerifyError, match="in use by another run"):
        SampleStore.open(path, HEADER)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_said_and_nothing_before_is_lost(path) -> None:
    with SampleStore.open(path, HEADER) as store:
        store.append(fake_drawn("p", 0))
        kept = store._file
        with Path("/dev/full").open("wb", buffering=0) as full:
            store._file = full
            with pytest.raises(OutputError, match="No space left"):
                store.append(fake_drawn("p", 1))
            store._file = kept
    with SampleStore.open(path, HEADER) as store:
        assert list(store.drawn) == [("p", 0)]


def test_an_interrupted_run_goes_on_where_it_was(path) -> None:
    prompts = load_suite("arithmetic").prompts[:3]
    first = FakeModel(5)
    with SampleStore.open(path, HEADER) as store, pytest.raises(KeyboardInterrupt):
        collect(cast(SampledModel, first), prompts, 4, SETTINGS, store)
    second = FakeModel(100)
    with SampleStore.open(path, HEADER) as store:
        drawn = collect(cast(SampledModel, second), prompts, 4, SETTINGS, store)
    assert len(first.asked) == 5
    assert set(first.asked).isdisjoint(second.asked)
    assert [one.key for one in drawn] == [(p.id, i) for p in prompts for i in range(4)]
    third = FakeModel(0)
    with SampleStore.open(path, HEADER) as store:
        assert collect(cast(SampledModel, third), prompts, 4, SETTINGS, store) == drawn


def test_what_draws_is_ended_where_a_sample_cannot_be_stored(path, monkeypatch) -> None:
    """Not when the error is forgotten: threads may be drawing behind it."""
    ended = []

    class Drawing(FakeModel):
        def draw(self, *arguments, **keywords):
            try:
                yield from super().draw(*arguments, **keywords)
            finally:
                ended.append(True)

    def full(*_) -> Never:
        raise OutputError("The disk is full.")

    monkeypatch.setattr(SampleStore, "append", full)
    with SampleStore.open(path, HEADER) as store, pytest.raises(OutputError) as error:
        collect(cast(SampledModel, Drawing(100)), load_suite("arithmetic").prompts[:3], 4, SETTINGS, store)
    assert ended == [True], error  # which still holds every frame


def test_a_killed_process_loses_nothing_that_it_had_appended(path) -> None:
    code = (
        "import os, sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path; "
        "from test_store import *; store = SampleStore.open(Path(sys.argv[1]), HEADER); "
        "[store.append(fake_drawn('p', i)) for i in range(4)]; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path), str(Path(__file__).parent), *sys.path], check=False)
    assert done.returncode == -9
    with SampleStore.open(path, HEADER) as store:
        assert len(store.drawn) == 4
