"""Compares the replies of two devices token by token: the same samples, drawn with the same random numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from edgedistill.runtime.batch.request import SampleKey

    Replies = Mapping[SampleKey, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Device:
    """A kind of machine in the cluster: display ``name``, number of ``workers``, ``details`` (cpu, isa, ...)."""

    name: str
    workers: int
    details: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DeviceComparison:
    """The same replies on two devices.

    Attributes:
        first, second: Names of the devices.
        replies: Number of replies that were compared. ``parted``: number of those that differ.
        prompt_id, position: Where the earliest divergence is (0: the first token); None if there is none.
        mean_shared: Mean number of tokens before the divergence, or of the whole reply where there is none.
    """

    first: str
    second: str
    replies: int
    parted: int
    prompt_id: str | None
    position: int | None
    mean_shared: float


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """The devices that drew the samples, and how far they agree; no comparisons if all are of one kind."""

    devices: tuple[Device, ...]
    comparisons: tuple[DeviceComparison, ...] = ()

    @property
    def sentences(self) -> list[str]:
        """The report for people."""
        count = sum(device.workers for device in self.devices)
        kinds = ", ".join(f"{device.workers} x {device.name}" for device in self.devices if device.workers)
        found = [f"Samples were drawn by {count} worker{'s' * (count != 1)}: {kinds}."] if count else []
        for one in self.comparisons:
            pair = f"{one.first} and {one.second}"
            if one.position is None:
                found.append(f"{pair} gave the same {one.replies} replies, token for token.")
            else:
                found.append(
                    f"{pair} part in {one.parted} of {one.replies} replies, first at token {one.position} of "
                    f"`{one.prompt_id}`; {one.mean_shared:.1f} tokens are shared on average. Same weights, same noise: "
                    "the numerics of the devices differ."
                )
        return found


def compare_devices(replies: Mapping[str, Replies]) -> tuple[DeviceComparison, ...]:
    """Compare the first device with each of the others; all have the same keys."""
    names = list(replies)
    return tuple(_compare(names[0], name, replies[names[0]], replies[name]) for name in names[1:])


def divergence(first: Sequence[int], second: Sequence[int]) -> int | None:
    """Position of the first token that differs (or that only one has); None for equal sequences."""
    shared = next((at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), None)
    if shared is None and len(first) != len(second):
        return min(len(first), len(second))
    return shared


def _compare(first: str, second: str, left: Replies, right: Replies) -> DeviceComparison:
    places = {key: divergence(tokens, right[key]) for key, tokens in left.items()}
    parted = {key: place for key, place in places.items() if place is not None}
    earliest = min(parted, key=lambda key: parted[key], default=None)
    shared = [len(left[key]) if place is None else place for key, place in places.items()]
    return DeviceComparison(
        first=first,
        second=second,
        replies=len(left),
        parted=len(parted),
        prompt_id=None if earliest is None else earliest[0],
        position=None if earliest is None else parted[earliest],
        mean_shared=sum(shared) / len(shared) if shared else 0.0,
    )
