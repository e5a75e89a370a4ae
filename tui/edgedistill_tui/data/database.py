"""A SQLite file that several programs may use at once: connection, transactions, recovery of a damaged file.

A statement fails soon at a lock or a full disk, and can be repeated. A damaged file is moved aside and a new one is
started with everything that can still be read.
"""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, TypeVar

from edgedistill.errors import EdgedistillError
from edgedistill_tui.data import migrations
from edgedistill_tui.data.config import free_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_T = TypeVar("_T")

BUSY_MS = 300
"""Milliseconds that a statement waits for another program; few, because the screen waits too, and saves are
repeated."""


class StoreError(EdgedistillError):
    """The database cannot be read or written now; data in memory are not affected."""


class Database:
    """The file at ``path``; connects when it is first used, and again after a failure.

    Attributes:
        notices: Sentences about what happened to the file; the screen shows and removes them.
        has_search: Whether the file has an index for searching; known once connected.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notices: list[str] = []
        self._connection: sqlite3.Connection | None = None
        self.has_search = False

    def read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """What ``work`` reads; raises StoreError."""
        return self._attempt(work)

    def write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do ``work`` as one transaction. Raises StoreError, in which case nothing was written."""

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
                raise StoreError(f"{self.path.name}: {error}.", hint="The operation will be retried.") from error
            except OverflowError as error:
                raise StoreError(f"{self.path.name}: {error}.", hint="Choose another session.") from error
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # SQLite quotes damaged text in its messages
                self.close()
                if last or isinstance(error, sqlite3.IntegrityError):
                    raise StoreError(f"{self.path.name}: {error}.", hint="The operation will be retried.") from error
                self._move_aside(error)
            except OSError as error:
                raise StoreError(
                    f"{self.path}: {error.strerror or error}.", hint="The operation will be retried."
                ) from error
        raise AssertionError("unreachable")

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=BUSY_MS / 1000)
            # A text with a flipped bit is shown with a replacement character instead of ending the program.
            connection.text_factory = lambda data: data.decode("utf-8", "replace")
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
                hint="Install the version of edgedistill that made it, or a newer one.",
            )
        migrations.migrate(connection)
        self.has_search = migrations.has_search_index(connection)

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
            raise StoreError(
                f"{self.path}: {problem.strerror or problem}.", hint="The operation will be retried."
            ) from problem
        taken = self._take_over(kept)
        saved = f", with the {taken} session(s) that could be read" if taken else ""
        self.notices.append(
            f"{self.path.name} was damaged ({error}); it was kept as {kept.name}, and a new one was started{saved}."
        )

    def _take_over(self, damaged: Path) -> int:  # noqa: ARG002 (subclasses know what is in it)
        """Copy readable records of a damaged file into the new one; returns their number."""
        return 0

    def close(self) -> None:
        """Close the connection; the next call opens it again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
