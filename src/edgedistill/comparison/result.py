"""What a comparison found: one row a bundle, and which rows no other beats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgedistill import notebook
from edgedistill.json_codec import Record, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgedistill.comparison.quality import Quality
    from edgedistill.runtime.stats import Spread


@dataclass(frozen=True, slots=True)
class Row(Record):
    """One bundle.

    Attributes:
        name: Format or profile.
        reference: Whether the others are compared with this one.
        bits_per_weight, file_bytes: Stored bits over all weights; size of the bundle's files.
        kv_bytes_per_token: Growth of the KV cache.
        fits: Whether it keeps to its profile's limits.
        scoring, decode: Distance to the reference along the two numerical paths.
        decode_tps, prefill_tps, rss_bytes: Tokens per second and peak memory over the rounds; None: not measured.
        bundle: Name of its directory.
    """

    name: str
    reference: bool
    bits_per_weight: float
    file_bytes: int
    kv_bytes_per_token: int
    fits: bool
    scoring: Quality
    decode: Quality
    decode_tps: Spread | None
    prefill_tps: Spread | None
    rss_bytes: Spread | None
    bundle: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows, the reference first; ``left_out`` says why a format is missing, ``settings`` how it was measured."""

    model: str
    rows: tuple[Row, ...]
    left_out: tuple[tuple[str, str], ...]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        best = front(self.rows, lambda row: row.file_bytes)
        found: dict[str, Any] = encode(self)
        left_out = [{"name": name, "reason": reason} for name, reason in self.left_out]
        return found | {
            "rows": [{**row.to_dict(), "pareto": row.name in best} for row in self.rows],
            "left_out": left_out,
        }

    def _repr_html_(self) -> str:
        from edgedistill.comparison.page import HEADERS, cells, explained

        return notebook.table(HEADERS, cells(self)) + notebook.text("\n".join(explained(self)))


def front(rows: Sequence[Row], cost: Callable[[Row], float]) -> set[str]:
    """Names of the rows that no other beats: none costs as little and has as small a mean KL, and less of one."""

    def beats(a: Row, b: Row) -> bool:
        first, second = (cost(a), a.scoring.kl), (cost(b), b.scoring.kl)
        return first[0] <= second[0] and first[1] <= second[1] and first != second

    return {row.name for row in rows if not any(beats(other, row) for other in rows)}
