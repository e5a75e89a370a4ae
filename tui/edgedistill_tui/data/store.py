"""Keeps sessions in SQLite. They are written while they grow; several programs may use the database at once.

A save writes the messages that are not on disk yet; if it fails (a lock, a full disk), it is tried again later. If the
database cannot be written even at the end, the session goes to a rescue file, which the next start imports.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.atomic_file import write_whole
from edgedistill_tui.data.config import free_name
from edgedistill_tui.data.database import Database, StoreError
from edgedistill_tui.data.salvage import readable_rows
from edgedistill_tui.data.search import FORM, Summary, find, summaries
from edgedistill_tui.data.session import Message, Session

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

_SESSION = ("id", "title", "system", "settings", "bundle", "created", "updated", "leaf")
_MESSAGE = (
    "id",
    "session",
    "parent",
    "role",
    "content",
    "reasoning",
    "raw",
    "finish_reason",
    "stats",
    "about",
    "steps",
    "created",
)


@dataclass(frozen=True, slots=True)
class _Rescued:
    messages: tuple[Message, ...]


class Store(Database):
    """Sessions, and runs of the profiler, in the database at ``path``."""

    # ---- sessions --------------------------------------------------------------------------------------------

    def save(self, session: Session) -> None:
        """Write what is not on disk yet; raises StoreError and keeps it marked as not written."""
        if not session.messages and not session.withdrawn:
            return
        session.updated = time.time()
        withdrawn = [(session.id, number) for number in session.withdrawn]

        def write(connection: sqlite3.Connection) -> list[Message]:
            known = connection.execute("SELECT 1 FROM session WHERE id = ?", (session.id,)).fetchone()
            # Another program may have deleted the session meanwhile: then all of it is written again.
            pending = [m for m in session.messages.values() if m.dirty or not known]
            connection.executemany("DELETE FROM message WHERE session = ? AND id = ?", withdrawn)
            if session.messages:
                connection.execute(_upsert("session", _SESSION), _session_row(session))
            else:  # nothing of it is left, unless another program went on with it
                unused = "NOT EXISTS (SELECT 1 FROM message WHERE session = ?)"
                connection.execute(f"DELETE FROM session WHERE id = ? AND {unused}", (session.id, session.id))
            connection.executemany(_upsert("message", _MESSAGE), [_message_row(session, m) for m in pending])
            return pending

        for message in self.write(write):
            message.dirty = False
        session.withdrawn -= {number for _, number in withdrawn}

    def load(self, session_id: int) -> Session:
        """A session with all its messages; raises StoreError if there is none."""

        def read(connection: sqlite3.Connection) -> Session | None:
            row = connection.execute(
                f"SELECT {', '.join(_SESSION)} FROM session WHERE id = ?", (session_id,)
            ).fetchone()
            if row is None:
                return None
            values = dict(zip(_SESSION, row, strict=True))
            session = FORM.decode(Session, values | {"settings": _json(values["settings"])}, "the session")
            columns = ", ".join(_MESSAGE)
            for entry in connection.execute(
                f"SELECT {columns} FROM message WHERE session = ? ORDER BY created, id", (session_id,)
            ):
                fields = _fields(dict(zip(_MESSAGE, entry, strict=True)) | {"dirty": False})
                del fields["session"]
                with contextlib.suppress(StoreError):  # a damaged message is left out, the others are shown
                    session.messages[fields["id"]] = _message(fields)
            _mend(session)
            return session

        session = self.read(read)
        if session is None:
            raise StoreError("That session is gone: another program deleted it.", hint="Choose another one.")
        return session

    def sessions(self, query: str = "", *, limit: int = 100, offset: int = 0) -> list[Summary]:
        """Sessions, the last used first; with ``query`` those whose title or messages hold all its words."""

        def read(connection: sqlite3.Connection) -> list[Summary]:
            return list(summaries(connection, query, limit=limit, offset=offset, indexed=self.has_search))

        return self.read(read)

    def questions(self, *, limit: int = 200) -> list[str]:
        """The questions of all sessions without duplicates, the newest first."""
        sql = "SELECT content FROM message WHERE role = 'user' GROUP BY content ORDER BY max(created) DESC LIMIT ?"
        return self.read(lambda connection: [str(row[0]) for row in connection.execute(sql, (limit,))])

    def find(self, query: str, *, limit: int, offset: int, wanted: Callable[[], bool]) -> list[Summary]:
        """``sessions`` for threads other than the screen's; empty once ``wanted`` returns False."""
        return find(self.path, query, limit=limit, offset=offset, wanted=wanted)

    def delete(self, session_id: int) -> None:
        """Remove a session and its messages."""
        self.write(lambda connection: connection.execute("DELETE FROM session WHERE id = ?", (session_id,)))

    def rename(self, session_id: int, title: str) -> None:
        """Give a session another title."""
        self.write(
            lambda connection: connection.execute("UPDATE session SET title = ? WHERE id = ?", (title, session_id))
        )

    # ---- profiler runs ---------------------------------------------------------------------------------------

    def add_run(self, machine: str, bundle: str, bundle_hash: str, data: dict[str, Any]) -> None:
        """Keep a profiler run."""
        row = (machine, bundle, bundle_hash, time.time(), json.dumps(data))
        sql = "INSERT INTO profile_run (machine, bundle, bundle_hash, created, data) VALUES (?, ?, ?, ?, ?)"
        self.write(lambda connection: connection.execute(sql, row))

    def runs(self, machine: str, *, limit: int = 50) -> list[tuple[int, str, str, float, dict[str, Any]]]:
        """(id, bundle, hash, time, data) of the runs of one machine, newest first."""
        columns = "id, bundle, bundle_hash, created, data"
        sql = f"SELECT {columns} FROM profile_run WHERE machine = ? ORDER BY created DESC LIMIT ?"
        return self.read(lambda c: [(*row[:4], _json(row[4])) for row in c.execute(sql, (machine, limit))])

    # ---- damage --------------------------------------------------------------------------------------------

    def _take_over(self, damaged: Path) -> int:
        """Copy sessions with their intact messages; a session whose own row is lost gets the title "recovered"."""
        sessions: dict[int, Session] = {}
        for values in readable_rows(damaged, "session", _SESSION):
            with contextlib.suppress(StoreError):
                values["settings"] = _json(values.get("settings"))
                session = FORM.decode(Session, values, "the session")
                sessions[session.id] = session
        for values in readable_rows(damaged, "message", _MESSAGE):
            number = values.pop("session", None)
            if not isinstance(number, int):
                continue
            with contextlib.suppress(StoreError):
                message = _message(_fields(values) | {"dirty": True})
                session = sessions.setdefault(number, Session(title="recovered", id=number))
                session.messages[message.id] = message
        taken = 0
        for session in sessions.values():
            _mend(session)
            with contextlib.suppress(StoreError, OSError):
                self.save(session)
                taken += bool(session.messages)
        return taken

    # ---- rescue --------------------------------------------------------------------------------------------

    def rescue(self, session: Session) -> Path | None:
        """Write a session that the database lacks to a JSON file; returns its path, or None if nothing is missing.

        The file is beside the database or, if that fails, in the user's home or among the temporary files.

        Raises:
            OSError: None of these can be written.
        """
        if not any(message.dirty for message in session.messages.values()):
            return None
        values = asdict(session)
        values["messages"] = list(values["messages"].values())
        del values["withdrawn"]
        text = json.dumps(values, ensure_ascii=False).encode("utf-8", "replace")
        problem: OSError | None = None
        places: tuple[Callable[[], Path], ...] = (lambda: self.path.parent, Path.home, _private)
        for place in places:
            try:
                directory = place()
                directory.mkdir(parents=True, exist_ok=True)
                path = free_name(directory, f"rescued-{session.id}", ".json")
                write_whole(path, text)
            except (OSError, RuntimeError) as error:  # a user may have no home
                problem = problem or (error if isinstance(error, OSError) else None)
            else:
                return path
        raise problem or OSError("no directory can be written")

    def take_in_rescued(self) -> int:
        """Import rescued sessions into the database and remove their files; returns their number."""
        taken = 0
        for path in sorted(self.path.parent.glob("rescued-*.json")):
            try:
                self.save(_rescued(FORM.parse(FORM.read_file(path), path.name), path.name))
            except (StoreError, FileNotFoundError):
                continue
            path.unlink(missing_ok=True)
            taken += 1
        return taken


def _private() -> Path:
    """A new temporary directory that other users cannot read."""
    return Path(tempfile.mkdtemp(prefix="edgedistill-"))


def _mend(session: Session) -> None:
    """Repair parents and leaf of a session that was read with missing messages."""
    session.break_circles()
    if session.leaf not in session.messages and session.messages:
        session.leaf = max(session.messages.values(), key=lambda m: m.created).id


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the table as the fields of a message."""
    steps = _json(f'{{"steps": {row.get("steps", "[]")}}}').get("steps", [])
    return {**row, "stats": _json(row.get("stats")), "about": _json(row.get("about")), "steps": steps}


def _message(fields: dict[str, Any]) -> Message:
    """A message, without statistics and steps if these are damaged. Raises StoreError."""
    try:
        return FORM.decode(Message, fields, "message")
    except StoreError:
        return FORM.decode(Message, {**fields, "stats": {}, "about": {}, "steps": []}, "message")


def _rescued(value: Any, source: str) -> Session:
    messages = FORM.decode(_Rescued, value, source).messages
    session = FORM.decode(Session, {**value, "messages": {}}, source)
    session.messages = {message.id: dataclasses.replace(message, dirty=True) for message in messages}
    session.break_circles()
    return session


def _upsert(table: str, columns: tuple[str, ...]) -> str:
    changes = ", ".join(f"{c} = excluded.{c}" for c in columns[1:])
    marks = ", ".join("?" for _ in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {changes}"


def _session_row(session: Session) -> tuple[Any, ...]:
    values = {name: getattr(session, name) for name in _SESSION}
    return tuple(_clean(value) for value in (values | {"settings": json.dumps(session.settings)}).values())


def _message_row(session: Session, message: Message) -> tuple[Any, ...]:
    values = {name: getattr(message, name) for name in _MESSAGE if name != "session"}
    values |= {"session": session.id, "stats": json.dumps(message.stats), "about": json.dumps(message.about)}
    values["steps"] = json.dumps(message.steps)
    return tuple(_clean(values[name]) for name in _MESSAGE)


def _clean(value: Any) -> Any:
    """``value`` without lone surrogates, which a terminal may paste and UTF-8 cannot encode."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def _json(text: Any) -> dict[str, Any]:
    """A column's JSON object; empty if it is damaged, so that the message itself can still be read."""
    try:
        return FORM.parse_object(text if isinstance(text, str | bytes) else "", "the session")
    except StoreError:
        return {}
