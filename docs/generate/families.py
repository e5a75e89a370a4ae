"""The page of the model families: the table that ``edgedistill families`` prints."""

from __future__ import annotations

from markup import cell, table

from edgedistill.architecture.levels import family_levels
from edgedistill.cli.families import HEADERS, row_cells


def page() -> str:
    """The table; what its columns mean stands in docs/reference/families.md."""
    return table(HEADERS, ([f"`{row.model_type}`", *map(cell, row_cells(row)[1:])] for row in family_levels()))
