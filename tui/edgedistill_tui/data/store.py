"""Sessions in SQLite: written as they grow, by any number of programs at once, and never lost.

What is in memory is the truth; a save writes what is not on disk yet, and one that fails (a lock, a full disk) is
tried again later. A damaged file is moved aside and a new one begun. What cannot be written even at the end goes to a
rescue file beside the database, which the next start takes in.

Must not know: Textual, models.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from edgedistill.errors import EdgedistillError
from edgedistill_tui.data import migrations
from edgedistill_tui.data.places import free_name
from edgedistill_tui.data.session import Message, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_T = TypeVar("_T")

BUSY_MS = 300
"""How long a statement waits for another program; short, because the screen waits with it, and a save is repeated."""

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
    "created",
)


class StoreError(EdgedistillError):
    """A database that cannot be read or written now; what is in memory is still there."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A session as a list shows it; ``snippet`` is where a search found its words."""

    id: int
    title: str
    bundle: str
    updated: float
    messages: int
    snippet: str = ""


class Store:
    """The database at ``path``; connects when it is first used, and again after a failure.

    Attributes:
        notices: What happened to the file, for people; the screen shows and clears them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notices: list[str] = []
        self._connection: sqlite3.Connection | None = None
        self._search = False

    # ---- sessions --------------------------------------------------------------------------------------------

    def save(self, session: Session) -> None:
        """Write what is not on disk yet; raises StoreError and keeps it marked as not written."""
        if not session.messages:
            return
        session.updated = time.time()

        def write(connection: sqlite3.Connection) -> list[Message]:
            known = connection.execute("SELECT 1 FROM session WHERE id = ?", (session.id,)).fetchone()
            # Another program may have deleted the session meanwhile: then all of it is written again.
            pending = [m for m in session.messages.values() if m.dirty or not known]
            connection.execute(_upsert("session", _SESSION), _session_row(session))
            connection.executemany(_upsert("message", _MESSAGE), [_message_row(session, m) for m in pending])
            return pending

        for message in self._write(write):
            message.dirty = False

    def load(self, session_id: int) -> Session:
        """A session with all its messages; raises StoreError if there is none."""

        def read(connection: sqlite3.Connection) -> Session | None:
            row = connection.execute(
                f"SELECT {', '.join(_SESSION)} FROM session WHERE id = ?", (session_id,)
            ).fetchone()
            if row is None:
                return None
            values = dict(zip(_SESSION, row, strict=True))
            session = Session(**{**values, "settings": _json(values["settings"])})
            columns = ", ".join(_MESSAGE)
            for entry in connection.execute(
                f"SELECT {columns} FROM message WHERE session = ? ORDER BY created, id", (session_id,)
            ):
                fields = dict(zip(_MESSAGE, entry, strict=True))
                del fields["session"]
                fields |= {"stats": _json(fields["stats"]), "about": _json(fields["about"]), "dirty": False}
                session.messages[fields["id"]] = Message(**fields)
            if session.leaf not in session.messages and session.messages:
                session.leaf = max(session.messages.values(), key=lambda m: m.created).id
            return session

        session = self._read(read)
        if session is None:
            raise StoreError("That session is gone: another program deleted it.", hint="Choose another one.")
        return session

    def sessions(self, query: str = "", *, limit: int = 100, offset: int = 0) -> list[Summary]:
        """Sessions, the last used first; with ``query`` those whose title or messages hold all its words."""
        words = "".join(c if c.isprintable() else " " for c in query).split()
        return self._read(lambda connection: list(self._summaries(connection, words, limit, offset)))

    def delete(self, session_id: int) -> None:
        """Remove a session and its messages."""
        self._write(lambda connection: connection.execute("DELETE FROM session WHERE id = ?", (session_id,)))

    def rename(self, session_id: int, title: str) -> None:
        """Give a session another title."""
        self._write(
            lambda connection: connection.execute("UPDATE session SET title = ? WHERE id = ?", (title, session_id))
        )

    def _summaries(
        self, connection: sqlite3.Connection, words: list[str], limit: int, offset: int
    ) -> Iterator[Summary]:
        where, values = "1", []  # type: tuple[str, list[Any]]
        snippet = "''"
        if words and self._search:
            match = " ".join('"' + word.replace('"', '""') + '"*' for word in words)
            like = " AND ".join("s.title LIKE ? ESCAPE '\\'" for _ in words)
            hits = (
                "SELECT m.session FROM message_search f JOIN message m ON m.id = f.rowid WHERE message_search MATCH ?"
            )
            where, values = f"(s.id IN ({hits}) OR ({like}))", [match, *map(_like, words)]
            snippet = (
                "coalesce((SELECT snippet(message_search, -1, '', '', '…', 12) FROM message_search f JOIN message m"
                " ON m.id = f.rowid WHERE message_search MATCH ? AND m.session = s.id LIMIT 1), '')"
            )
        elif words:
            one = (
                "(s.title LIKE ? ESCAPE '\\' OR EXISTS (SELECT 1 FROM message m WHERE m.session = s.id AND"
                " (m.content LIKE ? ESCAPE '\\' OR m.reasoning LIKE ? ESCAPE '\\')))"
            )
            where = " AND ".join(one for _ in words)
            values = [_like(word) for word in words for _ in range(3)]
        count = "(SELECT count(*) FROM message m WHERE m.session = s.id)"
        sql = (
            f"SELECT s.id, s.title, s.bundle, s.updated, {count}, {snippet} FROM session s WHERE {where}"
            " ORDER BY s.updated DESC LIMIT ? OFFSET ?"
        )
        first = [values[0]] if "MATCH" in snippet else []
        for row in connection.execute(sql, (*first, *values, limit, offset)):
            yield Summary(row[0], row[1], row[2], row[3], row[4], " ".join(str(row[5]).split()))

    # ---- profiler runs ---------------------------------------------------------------------------------------

    def add_run(self, machine: str, bundle: str, bundle_hash: str, data: dict[str, Any]) -> None:
        """Keep a profiler run."""
        row = (machine, bundle, bundle_hash, time.time(), json.dumps(data))
        sql = "INSERT INTO profile_run (machine, bundle, bundle_hash, created, data) VALUES (?, ?, ?, ?, ?)"
        self._write(lambda connection: connection.execute(sql, row))

    def runs(self, machine: str, *, limit: int = 50) -> list[tuple[int, str, str, float, dict[str, Any]]]:
        """(id, bundle, hash, time, data) of the runs of one machine, newest first."""
        columns = "id, bundle, bundle_hash, created, data"
        sql = f"SELECT {columns} FROM profile_run WHERE machine = ? ORDER BY created DESC LIMIT ?"
        return self._read(lambda c: [(*row[:4], _json(row[4])) for row in c.execute(sql, (machine, limit))])

    # ---- lifetime --------------------------------------------------------------------------------------------

    def rescue(self, session: Session) -> Path | None:
        """The last resort: what is not in the database, as a JSON file beside it. None if nothing was missing."""
        if not any(message.dirty for message in session.messages.values()):
            return None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        path = free_name(self.path.parent, f"rescued-{session.id}", ".json")
        values = asdict(session)
        values["messages"] = list(values["messages"].values())
        path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
        return path

    def take_in_rescued(self) -> int:
        """Write rescued sessions into the database and remove their files; how many there were."""
        taken = 0
        for path in sorted(self.path.parent.glob("rescued-*.json")):
            try:
                values = json.loads(path.read_text(encoding="utf-8"))
                messages = [Message(**{**m, "dirty": True}) for m in values.pop("messages")]
                self.save(Session(**values, messages={m.id: m for m in messages}))
            except (OSError, ValueError, TypeError, KeyError, StoreError):
                continue
            path.unlink(missing_ok=True)
            taken += 1
        return taken

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # ---- the connection --------------------------------------------------------------------------------------

    def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        return self._attempt(work)

    def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        def transaction(connection: sqlite3.Connection) -> _T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        return self._attempt(transaction)

    def _attempt(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do ``work``; a damaged file is moved aside and the work done once more on a new one."""
        for last in (False, True):
            try:
                return work(self._connected())
            except sqlite3.OperationalError as error:
                self.close()
                raise StoreError(f"{self.path.name}: {error}.", hint="It is tried again.") from error
            except sqlite3.DatabaseError as error:
                self.close()
                if last or isinstance(error, sqlite3.IntegrityError):
                    raise StoreError(f"{self.path.name}: {error}.", hint="It is tried again.") from error
                self._move_aside(error)
            except OSError as error:
                raise StoreError(f"{self.path}: {error.strerror or error}.", hint="It is tried again.") from error
        raise AssertionError("unreachable")

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=BUSY_MS / 1000)
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # Readers and one writer at a time; NORMAL survives a crash of the program, if not of the machine's last second.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(str(found))
        if migrations.version(connection) > migrations.NEWEST:
            raise StoreError(
                f"{self.path.name} was made by a newer edgedistill (schema {migrations.version(connection)}, this one "
                f"knows {migrations.NEWEST}).",
                hint="Upgrade with: pip install --upgrade edgedistill",
            )
        migrations.migrate(connection)
        self._search = migrations.has_search_index(connection)

    def _move_aside(self, error: Exception) -> None:
        stem = f"{self.path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}"
        kept = free_name(self.path.parent, stem, "")
        try:
            self.path.rename(kept)
            for suffix in ("-wal", "-shm"):
                beside = self.path.with_name(self.path.name + suffix)
                if beside.exists():
                    beside.rename(kept.with_name(kept.name + suffix))
        except OSError as problem:
            raise StoreError(f"{self.path}: {problem.strerror or problem}.", hint="It is tried again.") from problem
        self.notices.append(f"{self.path.name} was damaged ({error}); it is kept as {kept.name}, and a new one begun.")


def _upsert(table: str, columns: tuple[str, ...]) -> str:
    changes = ", ".join(f"{c} = excluded.{c}" for c in columns[1:])
    marks = ", ".join("?" for _ in columns)
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {changes}"


def _session_row(session: Session) -> tuple[Any, ...]:
    values = {name: getattr(session, name) for name in _SESSION}
    return tuple((values | {"settings": json.dumps(session.settings)}).values())


def _message_row(session: Session, message: Message) -> tuple[Any, ...]:
    values = {name: getattr(message, name) for name in _MESSAGE if name != "session"}
    values |= {"session": session.id, "stats": json.dumps(message.stats), "about": json.dumps(message.about)}
    return tuple(_clean(values[name]) for name in _MESSAGE)


def _clean(value: Any) -> Any:
    """Lone surrogates, as a terminal may paste, are no UTF-8."""
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value


def _like(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
