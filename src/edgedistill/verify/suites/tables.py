"""Reads rows of CSV, TSV and Parquet files (extra: parquet) and of data sets on the Hugging Face Hub (extra:
datasets)."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, Any

from edgedistill.errors import SuiteError
from edgedistill.extras import missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MMLU_COLUMNS = ("question", "A", "B", "C", "D", "answer")
"""Columns of MMLU's own CSV files, which have no header row."""


def csv_rows(data: bytes, name: str, separator: str) -> Iterator[dict[str, Any]]:
    """The rows of a table whose first row names the columns; empty cells are left out.

    Raises:
        SuiteError: It is not UTF-8 or not CSV, a row has more cells than columns, or a column occurs twice.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SuiteError(f"{name}: not UTF-8 at byte {error.start}.") from error
    csv.field_size_limit(1 << 20)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        columns: list[str] = []
        for row in rows:
            if not row:
                continue
            if not columns:
                if len(row) == len(_MMLU_COLUMNS) and row[-1] in ("A", "B", "C", "D"):
                    columns = list(_MMLU_COLUMNS)
                else:
                    columns = [cell.strip() for cell in row]
                    if len(set(columns)) < len(columns):
                        twice = next(cell for cell in columns if columns.count(cell) > 1)
                        raise SuiteError(f"{name}: the column `{twice}` occurs more than once.")
                    continue
            if len(row) > len(columns):
                raise SuiteError(
                    f"{name}, line {rows.line_num}: {len(row)} cells; expected the {len(columns)} that the first line "
                    "names."
                )
            yield {column: cell for column, cell in zip(columns, row, strict=False) if cell}
    except csv.Error as error:
        raise SuiteError(f"{name}, line {rows.line_num}: {error}.") from error


def parquet_rows(path: Path, name: str, most: int, most_rows: int) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, without nulls.

    Raises:
        SuiteError: It cannot be read, or has more than ``most`` bytes or ``most_rows`` rows.
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing(f"{name} is a Parquet file, which takes the package pyarrow.", "parquet") from error
    try:
        with parquet.ParquetFile(path) as file:
            metadata = file.metadata
            size = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
            if size > most or metadata.num_rows > most_rows:
                raise SuiteError(
                    f"{name}: {metadata.num_rows} rows of {size >> 20} MiB; expected a suite of at most {most >> 20} "
                    f"MiB and {most_rows} rows."
                )
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    yield _plain_row(row)
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SuiteError(f"{name}: not a Parquet file that can be read ({reason}).") from error


def hub_rows(name: str, split: str | None) -> Iterator[dict[str, Any]]:
    """The rows of a data set of the Hugging Face Hub, or of a folder that the library ``datasets`` can open.

    Args:
        name: ``OWNER/NAME`` or ``OWNER/NAME:CONFIGURATION``.
        split: Name of the split; None: ``test``.

    Raises:
        SuiteError: There is no such data set, or it cannot be loaded.
        MissingExtraError: ``datasets`` is not installed.
    """
    try:
        import datasets
    except ImportError as error:
        raise missing(f"hub:{name} is opened with the package datasets, which is not installed.", "datasets") from error
    source, _, configuration = name.partition(":")
    try:
        found = datasets.load_dataset(source, configuration or None, split=split or "test")
    except Exception as error:  # the library raises whatever its parts raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise SuiteError(
            f"The data set hub:{name} cannot be opened: {reason}",
            hint="Name its configuration as hub:OWNER/NAME:CONFIGURATION, and its part with --split.",
        ) from error
    for row in found:
        yield _plain_row(row)


def _plain_row(row: dict[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in row.items() if _plain(value) is not None}


def _plain(value: Any) -> Any:
    """``value`` as a JSON value; None for types that JSON lacks, such as pictures, and for numbers that are not
    finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    return None
