"""Finds sessions by words in their titles, answers and reasoning.

SQLite's own ``snippet`` takes time that grows with the square of a message's matches, of which a pasted file may have
thousands, so excerpts are made here. ``find`` has its own connection, so that it can run in another thread.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import time
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgedistill.schema import Form, limits
from edgedistill_tui.data import migrations
from edgedistill_tui.data.database import BUSY_MS, StoreError
from edgedistill_tui.data.session import MAX_TIME

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FORM = Form(StoreError, hint="Choose another session.", surrogates=True, max_bytes=256 << 20)
_BEFORE, _AFTER = 30, 80
"""Characters of an excerpt before and after the start of the first match."""
_TRIES, _PAUSE_S = 20, 0.05
_LOOK_EVERY = 10_000
"""Steps of SQLite's virtual machine between two checks of whether the result is still wanted."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A session in a list; ``snippet`` is an excerpt around the first match of a search."""

    id: int
    title: str
    bundle: str
    updated: float = field(metadata=limits(low=0, high=MAX_TIME))
    messages: int
    snippet: str = ""


_SUMMARY = tuple(Summary.__dataclass_fields__)


def find(path: Path, query: str, *, limit: int, offset: int, wanted: Callable[[], bool]) -> list[Summary]:
    """``summaries`` of the database at ``path``, for any thread; empty without a file, or if it is no longer wanted.

    Raises:
        StoreError: The file cannot be read now.
    """
    for left in range(_TRIES, 0, -1):
        try:
            return _find(path, query, limit=limit, offset=offset, wanted=wanted)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if not wanted():
                return []
            # A writer that closes at this moment removes the files beside the database that a reader needs: try again.
            if left == 1 or not isinstance(error, sqlite3.OperationalError):
                raise StoreError(f"{path.name}: {error}.", hint="The operation will be retried.") from error
            time.sleep(_PAUSE_S)
    return []


def _find(path: Path, query: str, *, limit: int, offset: int, wanted: Callable[[], bool]) -> list[Summary]:
    if not path.exists():
        return []
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=BUSY_MS / 1000)
    with contextlib.closing(connection):
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.set_progress_handler(lambda: not wanted(), _LOOK_EVERY)
        indexed = migrations.has_search_index(connection)
        found = list(summaries(connection, query, limit=limit, offset=offset, indexed=indexed))
        return found if wanted() else []


def summaries(
    connection: sqlite3.Connection, query: str, *, limit: int, offset: int, indexed: bool
) -> Iterator[Summary]:
    """Sessions, the last used first; with ``query`` those whose title or one of whose messages holds all its words.

    ``indexed``: there is an index of the messages' words; without it, words are found anywhere in the text.
    """
    words = "".join(c if c.isprintable() else " " for c in query).split()
    where, values = "1", list[str]()
    found: dict[int, int] = {}
    if words and indexed:
        match = " ".join('"' + word.replace('"', '""') + '"*' for word in words)
        hits = "FROM message_search f JOIN message m ON m.id = f.rowid WHERE message_search MATCH ?"
        found = dict(connection.execute(f"SELECT m.session, max(m.id) {hits} GROUP BY m.session", (match,)))
        titled = " AND ".join("s.title LIKE ? ESCAPE '\\'" for _ in words)
        where, values = f"(s.id IN (SELECT m.session {hits}) OR ({titled}))", [match, *map(_like, words)]
    elif words:
        one = (
            "(s.title LIKE ? ESCAPE '\\' OR EXISTS (SELECT 1 FROM message m WHERE m.session = s.id AND"
            " (m.content LIKE ? ESCAPE '\\' OR m.reasoning LIKE ? ESCAPE '\\')))"
        )
        where = " AND ".join(one for _ in words)
        values = [_like(word) for word in words for _ in range(3)]
    count = "(SELECT count(*) FROM message m WHERE m.session = s.id)"
    sql = (
        f"SELECT s.id, s.title, s.bundle, s.updated, {count} FROM session s WHERE {where}"
        " ORDER BY s.updated DESC LIMIT ? OFFSET ?"
    )
    for row in connection.execute(sql, (*values, limit, offset)).fetchall():
        text = ""
        if (message := found.get(row[0])) is not None:
            both = connection.execute("SELECT content, reasoning FROM message WHERE id = ?", (message,)).fetchone()
            text = next((cut for part in both or () if (cut := excerpt(str(part), words))), "")
        shown = (row[0], str(row[1]), str(row[2]), row[3], row[4], text)
        with contextlib.suppress(StoreError):  # a damaged row is left out, the others are shown
            yield FORM.decode(Summary, dict(zip(_SUMMARY, shown, strict=True)), "a session")


def excerpt(text: str, words: list[str]) -> str:
    """One line around the first of ``words`` that begins a word of ``text``; empty if none does."""
    plain = _plain(text)
    for word in words:
        if (hit := re.search(rf"(?<!\w){re.escape(_plain(word))}", plain, re.IGNORECASE)) is not None:
            start, end = max(0, hit.start() - _BEFORE), min(len(text), hit.start() + _AFTER)
            cut = " ".join(text[start:end].split())
            return ("…" if start else "") + cut + ("…" if end < len(text) else "")
    return ""


def _plain(text: str) -> str:
    """``text`` without diacritics, as in the index, with the same number of characters."""
    return text if text.isascii() else "".join(unicodedata.normalize("NFD", c)[0] for c in text)


def _like(word: str) -> str:
    escaped = word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"
