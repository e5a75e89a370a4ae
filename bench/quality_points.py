"""Points of the curve of divergence against size: the record of one, the table, the plot and the verdict."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

OURS, PEER = "edgedistill", "llama.cpp"


@dataclass(frozen=True, slots=True)
class Point:
    """One quantized model, measured. Divergences are KL(original || this) in nats, means over positions.

    Attributes:
        engine: ``OURS`` or ``PEER``.
        file_bytes: Ours: weights and graph. llama.cpp: the GGUF, whose vocabulary and metadata are a part of it.
        tensor_bytes: Ours: the same, the graph included. llama.cpp: the tensors alone, so that a tokenizer counts on
            neither side.
        bits_per_weight: ``tensor_bytes`` over the original's parameters.
        kl: By prefill, all positions; ``kl_low`` and ``kl_high``: 95 %, sequences resampled. ``p99``: of ``kl``.
        top1: Share of positions with the original's most likely token.
        kl_decode: By one-token steps, on the first ``decode_positions`` of the positions; ``kl_prefill_there``: by
            prefill on the same ones.
        rss_bytes: Resident memory that loading and one token add.
        kl_by_kind: By prefill, mean over the positions of each kind of text.
        private_bytes: Of ``rss_bytes`` what no file backs; None: the system does not say, or it was not measured yet.
    """

    name: str
    engine: str
    file_bytes: int
    tensor_bytes: int
    bits_per_weight: float
    positions: int
    kl: float
    kl_low: float
    kl_high: float
    p99: float
    top1: float
    decode_positions: int
    kl_decode: float
    kl_prefill_there: float
    rss_bytes: int
    kl_by_kind: dict[str, float] = field(default_factory=dict)
    private_bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; ``Point(**values)`` reads it back."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A point of llama.cpp next to the best of ours that is no larger (None: every one of ours is larger)."""

    peer: Point
    best: Point | None
    decode: bool

    @property
    def below(self) -> bool:
        """Whether ours has less divergence at no more bytes."""
        return self.best is not None and _kl(self.best, self.decode) < _kl(self.peer, self.decode)

    def line(self) -> str:
        """One sentence with the numbers."""
        peer = f"{self.peer.name} ({self.peer.tensor_bytes / 1e6:.1f} MB, KL {_kl(self.peer, self.decode):.4f})"
        path = "decode" if self.decode else "prefill"
        if self.best is None:
            return f"{path}: {peer} stays above: every one of ours is larger"
        best = f"{self.best.name} ({self.best.tensor_bytes / 1e6:.1f} MB, KL {_kl(self.best, self.decode):.4f})"
        if self.below:
            return f"{path}: {peer}: below it lies {best}"
        return f"{path}: {peer} stays above: the best of ours that is no larger is {best}"


def verdicts(points: Sequence[Point], *, decode: bool) -> list[Verdict]:
    """One verdict per quantized point of llama.cpp, smallest first. Sizes compare ``tensor_bytes``, which is the
    stricter way: our graph counts, their vocabulary does not."""
    ours = [point for point in points if point.engine == OURS]
    peers = sorted((p for p in points if p.engine == PEER and p.name != "F32"), key=lambda p: p.tensor_bytes)
    found = []
    for peer in peers:
        fitting = [point for point in ours if point.tensor_bytes <= peer.tensor_bytes]
        found.append(Verdict(peer, min(fitting, key=lambda p: _kl(p, decode), default=None), decode))
    return found


def conclusion(found: Sequence[Verdict]) -> str:
    """Whether the whole curve lies below, in a line."""
    if not found:
        return "no point of llama.cpp to compare with"
    path = "decode" if found[0].decode else "prefill"
    above = [verdict.peer.name for verdict in found if not verdict.below]
    if above:
        return (
            f"{path}: {len(above)} of {len(found)} points of llama.cpp are not beaten at their size: {', '.join(above)}"
        )
    return f"{path}: the whole curve lies below llama.cpp's ({len(found)} points)"


def table(points: Sequence[Point]) -> list[str]:
    """Markdown, by size."""
    lines = [
        "| engine | format | file MB | bits/weight | mean KL (95 %) | p99 KL | same top | mean KL decode | RSS MB "
        "| private MB |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for p in sorted(points, key=lambda p: (p.tensor_bytes, p.kl)):
        size = f"{p.file_bytes / 1e6:.1f}"
        if p.file_bytes != p.tensor_bytes:
            size += f" ({p.tensor_bytes / 1e6:.1f})"
        lines.append(
            f"| {p.engine} | {p.name} | {size} | {p.bits_per_weight:.2f} "
            f"| {p.kl:.4f} ({p.kl_low:.4f} to {p.kl_high:.4f}) "
            f"| {p.p99:.3f} | {100 * p.top1:.1f} % | {p.kl_decode:.4f} | {p.rss_bytes / 1e6:.0f} "
            f"| {'' if p.private_bytes is None else f'{p.private_bytes / 1e6:.0f}'} |"
        )
    return lines


def table_by_kind(points: Sequence[Point]) -> list[str]:
    """Markdown, by size: mean KL by prefill on each kind of text."""
    kinds = list(dict.fromkeys(kind for point in points for kind in point.kl_by_kind))
    lines = [f"| engine | format | file MB | {' | '.join(kinds)} |", f"|---|---|---:|{'---:|' * len(kinds)}"]
    for p in sorted(points, key=lambda p: (p.tensor_bytes, p.kl)):
        values = (f"{p.kl_by_kind[kind]:.4f}" if kind in p.kl_by_kind else "" for kind in kinds)
        lines.append(f"| {p.engine} | {p.name} | {p.file_bytes / 1e6:.1f} | {' | '.join(values)} |")
    return lines


def plot(points: Sequence[Point], title: str, path: Path) -> bool:
    """PNG of mean KL against size and against private memory, prefill as dots and decode as circles; False where
    matplotlib is missing."""
    try:
        import matplotlib as mpl
    except ImportError:
        return False
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, both = plt.subplots(1, 2, figsize=(15, 6), sharey=True)
    for axes, label, cost in zip(
        both, ("MB (weights and graph; GGUF tensors)", "private memory, MB"), (_size, _memory), strict=True
    ):
        for engine, colour in ((OURS, "tab:blue"), (PEER, "tab:orange")):
            some = [(x, p) for p in points if p.engine == engine and p.name != "F32" and (x := cost(p)) is not None]
            some.sort(key=lambda one: (one[0], one[1].kl))
            if not some:
                continue
            sizes, found = [x for x, _ in some], [p for _, p in some]
            axes.plot(sizes, [p.kl for p in found], "o", color=colour, label=f"{engine}, prefill")
            axes.plot(sizes, [p.kl_decode for p in found], "o", mfc="none", color=colour, label=f"{engine}, decode")
            axes.plot(*zip(*lowest(some), strict=True), "-", color=colour, alpha=0.5)
            for x, p in some:
                axes.annotate(p.name, (x, p.kl), xytext=(4, 4), textcoords="offset points", fontsize=7)
        axes.set(xlabel=label, ylabel="mean KL, nats", yscale="log")
        axes.grid(alpha=0.3, which="both")
    both[0].legend()
    figure.suptitle(title)
    figure.savefig(path, dpi=120, bbox_inches="tight")
    plt.close(figure)
    return True


def lowest(some: Sequence[tuple[float, Point]]) -> list[tuple[float, float]]:
    """(cost, KL) of the points that none before them is as near as; ``some`` are in the order of cost."""
    found: list[tuple[float, float]] = []
    for x, point in some:
        if not found or point.kl < found[-1][1]:
            found.append((x, point.kl))
    return found


def _size(point: Point) -> float | None:
    return point.tensor_bytes / 1e6


def _memory(point: Point) -> float | None:
    return None if point.private_bytes is None else point.private_bytes / 1e6


def _kl(point: Point, decode: bool) -> float:
    return point.kl_decode if decode else point.kl
