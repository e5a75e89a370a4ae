"""Sessions on disk: nothing lost, whatever happens to the file."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill_tui.data import migrations, writing
from edgedistill_tui.data.database import StoreError
from edgedistill_tui.data.session import Session
from edgedistill_tui.data.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "sessions.db")


def talk(title: str = "How many apples?", answer: str = "There are 25.", reasoning: str = "32 - 7") -> Session:
    session = Session(system="Be brief.", settings={"temperature": 0.5})
    question = session.ask(title)
    reply = session.begin_reply(question, {"bundle": "demo", "hash": "abc"})
    reply.content, reply.reasoning, reply.raw = answer, reasoning, f"<think>{reasoning}</think>{answer}"
    reply.finish_reason, reply.stats = "stop", {"decode_tps": 42.0, "decode_s": 1.0, "new_tokens": 43}
    return session


def test_a_session_comes_back_as_it_was(store: Store) -> None:
    session = talk()
    store.save(session)
    assert store.load(session.id) == session
    assert not any(message.dirty for message in session.messages.values())
    (summary,) = store.sessions()
    assert (summary.title, summary.messages) == ("How many apples?", 2)


def test_regenerating_keeps_siblings_and_an_edit_forks(store: Store) -> None:
    session = talk()
    question, first = session.path()
    second = session.begin_reply(question, {})
    second.content = "25, I think."
    assert [m.id for m in session.siblings(second)] == [first.id, second.id]
    assert session.show_sibling(second, 1) is first
    assert session.path() == [question, first]
    edited = session.edit(question, "How many pears?")
    assert session.path() == [edited]
    store.save(session)
    loaded = store.load(session.id)
    assert loaded.show_sibling(loaded.messages[edited.id], -1).id == question.id
    # The newest path below the old question, with its reasoning, is still there.
    assert loaded.path()[-1].content == "25, I think."
    assert loaded.messages[first.id].reasoning == "32 - 7"


def test_fork_copies_the_path_into_a_session_of_its_own(store: Store) -> None:
    session = talk()
    session.ask("And now?")
    fork = session.fork(session.path()[1])
    store.save(session)
    store.save(fork)
    assert [m.content for m in store.load(fork.id).path()] == ["How many apples?", "There are 25."]
    assert len(store.sessions()) == 2


@pytest.mark.parametrize("indexed", [True, False])
def test_search_finds_words_in_titles_answers_and_reasoning(
    store: Store, indexed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not indexed:
        monkeypatch.setattr(migrations, "has_search_index", lambda connection: False)
    store.save(talk())
    store.save(talk("Weather?", "It rains 100 % of the time.", "clouds"))
    assert [s.title for s in store.sessions("apples")] == ["How many apples?"]
    assert [s.title for s in store.sessions("rains")] == ["Weather?"]
    assert [s.title for s in store.sessions("clou")] == ["Weather?"]
    assert [s.title for s in store.sessions('"quoted" % _')] == []
    assert len(store.sessions("")) == 2


@given(st.text(max_size=20))
def test_no_search_text_breaks_the_query(text: str) -> None:
    store = Store(Path(":memory:"))
    store.path = Path("file-that-is-never-made")
    store._connection = sqlite3.connect(":memory:", isolation_level=None)
    store._prepare(store._connection)
    store.save(talk())
    assert isinstance(store.sessions(text), list)
    store.close()


def test_deleting_a_session_takes_its_messages_and_index_along(store: Store) -> None:
    session = talk()
    store.save(session)
    store.delete(session.id)
    assert store.sessions() == store.sessions("apples") == []
    with pytest.raises(StoreError, match="gone"):
        store.load(session.id)


def test_a_session_that_another_program_deleted_is_written_again_as_a_whole(store: Store) -> None:
    session = talk()
    store.save(session)
    Store(store.path).delete(session.id)
    session.ask("Still there?")
    store.save(session)
    assert len(store.load(session.id).messages) == 3


def test_two_programs_write_into_one_session(store: Store) -> None:
    session = talk()
    store.save(session)
    other = Store(store.path)
    theirs = other.load(session.id)
    session.ask("from here")
    theirs.ask("from there")
    store.save(session)
    other.save(theirs)
    contents = {m.content for m in store.load(session.id).messages.values()}
    assert {"from here", "from there"} <= contents


def test_a_lock_delays_a_save_and_loses_nothing(store: Store) -> None:
    session = talk()
    store.save(session)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    session.ask("while locked")
    with pytest.raises(StoreError, match="locked"):
        store.save(session)
    other.execute("COMMIT")
    store.save(session)
    assert store.load(session.id).path()[-1].content == "while locked"


@pytest.mark.parametrize("damage", [b"not a database at all, but long enough to be looked at" * 40, b""])
def test_a_damaged_file_is_moved_aside_and_what_is_in_memory_written_to_a_new_one(store: Store, damage: bytes) -> None:
    store.save(talk("old"))
    store.close()
    session = talk("new")
    if damage:
        store.path.write_bytes(damage)
    else:  # in the middle of it
        content = bytearray(store.path.read_bytes())
        content[200:-200] = b"\xff" * (len(content) - 400)
        store.path.write_bytes(content)
    store.save(session)
    assert store.load(session.id).path()[0].content == "new"
    assert len(list(store.path.parent.glob("sessions.db.damaged-*"))) >= 1
    assert "damaged" in store.notices[0]


def test_a_newer_schema_is_left_alone(store: Store) -> None:
    store.save(talk())
    store.close()
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = store.path.read_bytes()
    with pytest.raises(StoreError, match="newer"):
        store.save(talk())
    assert store.path.read_bytes() == before


def test_what_cannot_be_saved_is_rescued_and_taken_in_later(store: Store) -> None:
    session = talk()
    path = store.rescue(session)
    assert path is not None
    assert store.take_in_rescued() == 1
    assert not path.exists()
    assert store.load(session.id).path()[1].content == "There are 25."
    assert store.rescue(store.load(session.id)) is None


def test_migration_from_every_earlier_version(tmp_path: Path) -> None:
    for number, _ in migrations.MIGRATIONS:
        path = tmp_path / f"{number}.db"
        connection = sqlite3.connect(path, isolation_level=None)
        for step, script in migrations.MIGRATIONS:
            if step <= number:
                migrations._take(connection, step, script)
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("INSERT INTO session VALUES (1, 'kept', '', '{}', '', 0, 0, 2)")
        connection.execute(
            "INSERT INTO message (id, session, role, content, reasoning, raw, finish_reason, stats, about, created)"
            " VALUES (2, 1, 'user', 'kept too', '', '', '', '{}', '{}', 0)"
        )  # fmt: skip
        connection.close()
        store = Store(path)
        assert [s.title for s in store.sessions("too")] == ["kept"]
        store.close()


def test_a_killed_program_leaves_what_it_saved(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from edgedistill_tui.data.store import Store; from edgedistill_tui.data.session import Session\n"
        "s = Session(); s.ask('before the end'); Store(Path(sys.argv[1])).save(s); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "sessions.db")], check=False, timeout=300)
    assert [s.title for s in Store(tmp_path / "sessions.db").sessions()] == ["before the end"]


def test_exports(tmp_path: Path) -> None:
    session = talk()
    question = session.path()[0]
    session.begin_reply(question, {"bundle": "demo", "hash": "abc"}).finish_reason = "cancelled"
    text = writing.save(session, tmp_path, ".md").read_text()
    head, _, body = text.removeprefix("---\n").partition("---\n")
    front = {k: json.loads(v) for k, _, v in (line.partition(": ") for line in head.splitlines())}
    assert (front["bundle"], front["bundle_hash"]) == ("demo", "abc")
    assert front["settings"] == {"temperature": 0.5}
    assert "*(stopped)*" in body
    value = json.loads(writing.save(session, tmp_path, ".json").read_text())
    assert len(value["messages"]) == 3
    assert [m["reasoning"] for m in value["messages"] if m["role"] == "assistant"] == ["32 - 7", ""]


def test_a_long_message_is_found_at_once_and_shown_where_the_words_are(store: Store) -> None:
    """The time that SQLite's own excerpt takes grows with the square of the matches: with these, over a minute."""
    lines = [f"line {number} of the pasted file with some words" for number in range(20_000)]
    session = Session()
    session.ask("\n".join([*lines, "Ein Müller in Zürich"]))
    store.save(session)
    (found,) = store.find("pasted fi", limit=10, offset=0, wanted=lambda: True)
    assert found.snippet.startswith("line 0 of the pasted file with some words line 1")
    (found,) = store.sessions("muller zu")
    assert found.snippet.endswith("Ein Müller in Zürich")
    assert store.find("pasted", limit=10, offset=0, wanted=lambda: False) == []
    assert Store(store.path.with_name("none.db")).find("", limit=1, offset=0, wanted=lambda: True) == []


def test_what_was_taken_back_is_removed_from_the_file(store: Store) -> None:
    session = talk()
    store.save(session)
    question = session.ask("Too long?")
    reply = session.begin_reply(question, {})
    store.save(session)
    session.withdraw(reply)
    session.withdraw(question)
    store.save(session)
    assert not session.withdrawn
    assert len(store.load(session.id).messages) == 2
    for message in session.path()[::-1]:
        session.withdraw(message)
    store.save(session)
    assert store.sessions() == []


def test_what_can_be_read_of_a_damaged_database_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    store, made = Store(path), []
    for number in range(40):
        session = Session()
        question = session.ask(f"question {number} " + "word " * 300)
        session.begin_reply(question, {}).content = f"answer {number} " + "word " * 300
        store.save(session)
        made.append(session)
    store.read(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)"))
    store.close()
    data = bytearray(path.read_bytes())
    page = 4096
    middle = data.index(b"question 20 ") // page * page
    data[middle : middle + page] = b"\xff" * page
    path.write_bytes(data)
    found = Store(path)
    titles = [summary.title for summary in found.sessions(limit=100)]
    assert any("with the" in notice and "could be read" in notice for notice in found.notices)
    kept = [session for session in made if session.title in titles]
    # How many the damaged page hides, and of which sessions a part, depends on where random ids put them.
    whole = 0
    for session in kept:
        said = [message.content for message in session.path()]
        read = [message.content for message in found.load(session.id).path()]
        assert set(read) <= set(said)
        whole += read == said
    assert whole >= 5
    assert list(tmp_path.glob("sessions.db.damaged-*"))
    found.close()
