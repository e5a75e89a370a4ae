"""What a comparison found: one row a bundle, and which rows no other beats."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from edgedistill import notebook

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgedistill.comparison.quality import Quality


@dataclass(frozen=True, slots=True)
class Spread:
    """Values of several rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """Their median."""
        return median(self.values)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        ends = {"median": self.median, "min": min(self.values), "max": max(self.values)}
        return {**ends, "values": list(self.values)}


@dataclass(frozen=True, slots=True)
class Row:
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

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        rates = {name: getattr(self, name) for name in ("decode_tps", "prefill_tps", "rss_bytes")}
        return {
            "name": self.name,
            "reference": self.reference,
            "bundle": self.bundle,
            "bits_per_weight": self.bits_per_weight,
            "file_bytes": self.file_bytes,
            "kv_bytes_per_token": self.kv_bytes_per_token,
            "fits": self.fits,
            "scoring": self.scoring.to_dict(),
            "decode": self.decode.to_dict(),
            **{name: None if spread is None else spread.to_dict() for name, spread in rates.items()},
        }


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
        return {
            "model": self.model,
            "settings": self.settings,
            "rows": [{**row.to_dict(), "pareto": row.name in best} for row in self.rows],
            "left_out": [{"name": name, "reason": reason} for name, reason in self.left_out],
        }

    def _repr_html_(self) -> str:
        from edgedistill.comparison.page import HEADERS, cells, explained

        return notebook.table(HEADERS, cells(self)) + notebook.text("\n".join(explained(self)))


def front(rows: Sequence[Row], cost: Callable[[Row], float]) -> set[str]:
    """Names of the rows that no other beats: none costs as little and has as small a mean KL, and less of one."""

    def beats(a: Row, b: Row) -> bool:
        mine, theirs = (cost(a), a.scoring.kl), (cost(b), b.scoring.kl)
        return mine[0] <= theirs[0] and mine[1] <= theirs[1] and mine != theirs

    return {row.name for row in rows if not any(beats(other, row) for other in rows)}
