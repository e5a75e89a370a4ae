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
        private_bytes: Private memory that opening it takes, without tokenizer and mapped pages of the file, over the
            rounds; None: not measured.
        private_predicted_bytes: The same of the weights alone, by the formula of ``plan``.
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
    private_bytes: Spread | None
    private_predicted_bytes: int
    bundle: str

    @property
    def private(self) -> float:
        """Bytes of private memory by which rows are compared: the median of what was measured, else the prediction."""
        return self.private_predicted_bytes if self.private_bytes is None else self.private_bytes.median


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows, the reference first; ``left_out`` says why a format is missing, ``settings`` how it was measured."""

    model: str
    rows: tuple[Row, ...]
    left_out: tuple[tuple[str, str], ...]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        best = front(self.rows, file_size)
        beaten = dominated(self.rows, memory)
        found: dict[str, Any] = encode(self)
        left_out = [{"name": name, "reason": reason} for name, reason in self.left_out]
        return found | {
            "rows": [
                {**row.to_dict(), "pareto": row.name in best, "dominated_by": list(beaten.get(row.name, ()))}
                for row in self.rows
            ],
            "left_out": left_out,
        }

    def _repr_html_(self) -> str:
        from edgedistill.comparison.page import HEADERS, cells, explained

        return notebook.table(HEADERS, cells(self)) + notebook.text("\n".join(explained(self)))


def file_size(row: Row) -> float:
    """A cost of ``front``: bytes on disk."""
    return row.file_bytes


def memory(row: Row) -> float:
    """A cost of ``front``: bytes of private memory."""
    return row.private


def front(rows: Sequence[Row], cost: Callable[[Row], float]) -> set[str]:
    """Names of the rows that no other beats: none costs as little and has as small a mean KL, and less of one."""
    return {row.name for row in rows} - dominated(rows, cost).keys()


def dominated(rows: Sequence[Row], cost: Callable[[Row], float]) -> dict[str, tuple[str, ...]]:
    """Rows that another beats, by name, each with the names of those that do."""

    def beats(a: Row, b: Row) -> bool:
        first, second = (cost(a), a.scoring.kl), (cost(b), b.scoring.kl)
        return first[0] <= second[0] and first[1] <= second[1] and first != second

    found = {row.name: tuple(other.name for other in rows if beats(other, row)) for row in rows}
    return {name: others for name, others in found.items() if others}
