"""The database's schema as numbered migrations; ``PRAGMA user_version`` is the number of the last one that a file has.

A released migration is never changed; a change of the schema is a new one.
"""

from __future__ import annotations

import sqlite3

_TABLES = """
CREATE TABLE session (
    id INTEGER PRIMARY KEY,
    title TEXT NOT NULL,
    system TEXT NOT NULL,
    settings TEXT NOT NULL,
    bundle TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    leaf INTEGER
);
CREATE INDEX session_by_update ON session (updated DESC);
CREATE TABLE message (
    id INTEGER PRIMARY KEY,
    session INTEGER NOT NULL REFERENCES session (id) ON DELETE CASCADE,
    parent INTEGER,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    reasoning TEXT NOT NULL,
    raw TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    stats TEXT NOT NULL,
    about TEXT NOT NULL,
    created REAL NOT NULL
);
CREATE INDEX message_by_session ON message (session, created);
"""

_RUNS = """
CREATE TABLE profile_run (
    id INTEGER PRIMARY KEY,
    machine TEXT NOT NULL,
    bundle TEXT NOT NULL,
    bundle_hash TEXT NOT NULL,
    created REAL NOT NULL,
    data TEXT NOT NULL
);
CREATE INDEX profile_run_by_machine ON profile_run (machine, created DESC);
"""

_SEARCH = """
CREATE VIRTUAL TABLE message_search USING fts5(content, reasoning, content='message', content_rowid='id');
CREATE TRIGGER message_search_insert AFTER INSERT ON message BEGIN
    INSERT INTO message_search (rowid, content, reasoning) VALUES (new.id, new.content, new.reasoning);
END;
CREATE TRIGGER message_search_delete AFTER DELETE ON message BEGIN
    INSERT INTO message_search (message_search, rowid, content, reasoning)
    VALUES ('delete', old.id, old.content, old.reasoning);
END;
CREATE TRIGGER message_search_update AFTER UPDATE ON message BEGIN
    INSERT INTO message_search (message_search, rowid, content, reasoning)
    VALUES ('delete', old.id, old.content, old.reasoning);
    INSERT INTO message_search (rowid, content, reasoning) VALUES (new.id, new.content, new.reasoning);
END;
INSERT INTO message_search (message_search) VALUES ('rebuild');
"""

_STEPS = """
ALTER TABLE message ADD COLUMN steps TEXT NOT NULL DEFAULT '[]';
"""

MIGRATIONS: tuple[tuple[int, str], ...] = ((1, _TABLES), (2, _RUNS), (3, _SEARCH), (4, _STEPS))
"""(number, script), in order."""

NEWEST = MIGRATIONS[-1][0]
_OPTIONAL = {3: "fts5"}
"""Migrations that need a module which SQLite may lack; searches have no index then."""


def version(connection: sqlite3.Connection) -> int:
    """Number of the last migration that a database has."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection) -> None:
    """Run the missing migrations, each in its own transaction; safe if other programs do the same."""
    for number, script in MIGRATIONS:
        if version(connection) >= number:
            continue
        connection.execute("BEGIN IMMEDIATE")
        try:
            if version(connection) < number:  # nobody else was faster
                _take(connection, number, script)
                connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _take(connection: sqlite3.Connection, number: int, script: str) -> None:
    # ``executescript`` would commit the transaction that makes a step all or nothing.
    statement = ""
    for line in script.strip().splitlines():
        statement += line + "\n"
        if not sqlite3.complete_statement(statement):
            continue
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as error:
            if _OPTIONAL.get(number) and f"no such module: {_OPTIONAL[number]}" in str(error):
                return
            raise
        statement = ""


def has_search_index(connection: sqlite3.Connection) -> bool:
    """Whether messages can be searched through FTS5."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'message_search'").fetchone()
    return found is not None
