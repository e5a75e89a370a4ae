"""A plan as a table of text, for the terminal and for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.units import format_bytes, format_rate

if TYPE_CHECKING:
    from edgedistill.planning.planner import PlanReport


def several_profiles(report: PlanReport) -> bool:
    """Whether the rows are for more than one profile."""
    return len({row.profile for row in report.rows}) > 1


def columns(report: PlanReport) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of text: a row each bundle, a column each context and prompt length that is predicted."""
    several = several_profiles(report)
    memory = sorted({at for row in report.rows for at in row.memory})
    decode = sorted({at for row in report.rows if row.speed for at in row.speed.decode_tps})
    prefill = sorted({at for row in report.rows if row.speed for at in row.speed.prefill_tps})
    ceilings = any(row.ceiling_tps is not None for row in report.rows)
    headers = ["format", *(["profile"] if several else []), "bits/weight", "file"]
    headers += [f"memory at {at}" for at in memory] + ["KV/token"]
    headers += [f"decode at {at}" for at in decode] + [f"prefill of {at}" for at in prefill]
    headers += [*(["target's bound"] if ceilings else []), "fits"]
    cells = []
    for row in report.rows:
        cell = [row.name, *([row.profile] if several else []), f"{row.bits_per_weight:.2f}"]
        cell.append(format_bytes(row.file_bytes))
        cell += [format_bytes(row.memory[at].ram_bytes) if at in row.memory else "" for at in memory]
        cell.append(format_bytes(row.kv_bytes_per_token))
        rates = (row.speed.decode_tps, row.speed.prefill_tps) if row.speed else ({}, {})
        for lengths, known in ((decode, rates[0]), (prefill, rates[1])):
            cell += [format_rate(known[at]) if at in known else "" for at in lengths]
        if ceilings:
            cell.append("" if row.ceiling_tps is None else f"<= {format_rate(row.ceiling_tps)}")
        cells.append([*cell, "yes" if row.fits else "no"])
    return headers, cells
