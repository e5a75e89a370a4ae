"""Reads what is left in a damaged database: rows from both ends of each table, up to the damage."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def readable_rows(path: Path, table: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of ``table`` by column, ``id`` among them; columns that the file does not have are left out."""
    found: dict[Any, dict[str, Any]] = {}
    connection = sqlite3.connect(path, isolation_level=None)
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    with contextlib.closing(connection), contextlib.suppress(sqlite3.DatabaseError, UnicodeDecodeError):
        known = {str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")}
        wanted = [name for name in columns if name in known]
        for order in ("ASC", "DESC"):
            with contextlib.suppress(sqlite3.DatabaseError, UnicodeDecodeError):
                for row in connection.execute(f"SELECT {', '.join(wanted)} FROM {table} ORDER BY rowid {order}"):
                    values = dict(zip(wanted, row, strict=True))
                    if values.get("id") in found:
                        break  # what the other end has given
                    found[values.get("id")] = values
    return list(found.values())
