"""A bundle whose samples are drawn by a cluster: what is missing, cut into units of work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.progress import NullProgress
from edgedistill.verify.cluster.worker import Unit
from edgedistill.verify.models.bundle import BundleModel

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from edgedistill.progress import Progress
    from edgedistill.runtime.batch.request import DrawSettings, SampleKey
    from edgedistill.verify.cluster.client import Cluster
    from edgedistill.verify.metrics.device_agreement import DeviceReport
    from edgedistill.verify.sampling.protocol import SampledModel
    from edgedistill.verify.types import Drawn, Prompt

UNIT = 64
"""Samples of a unit of work: two full batches, and little to draw again where a worker dies."""


def spread_over(cluster: Cluster | None, model: SampledModel) -> SampledModel:
    """The model with its sampling spread; as it is without a cluster, or where it is no bundle."""
    return SpreadBundle(model, cluster) if cluster is not None and isinstance(model, BundleModel) else model


class SpreadBundle(BundleModel):
    """A bundle whose samples are drawn by the workers of a cluster; all else happens here."""

    def __init__(self, model: BundleModel, cluster: Cluster) -> None:
        super().__init__(model.model)
        self._here = model
        self._cluster = cluster

    @property
    def here(self) -> BundleModel:
        """The same model, sampled on this machine."""
        return self._here

    def devices(self, prompts: Sequence[Prompt], settings: DrawSettings) -> DeviceReport:
        """Who drew the samples, and how far the devices agree."""
        return self._cluster.compare_devices(self, prompts, settings)

    def draw(
        self,
        prompts: Sequence[Prompt],
        samples: int,
        settings: DrawSettings,
        *,
        done: Collection[SampleKey] = (),
        progress: Progress | None = None,
        first_index: int = 0,
    ) -> Iterator[Drawn]:
        """See ``models.SampledModel.draw``."""
        for prompt in prompts:
            self.replies.encode(prompt, settings.thinking)  # a prompt that is too long is refused before work begins
        units = units_of(prompts, samples, done=frozenset(done), first_index=first_index, size=UNIT)
        progress = progress or NullProgress()
        progress.begin(f"sampling {self.identity.name}", len(prompts) * samples, "items")
        progress.advance(len(prompts) * samples - sum(unit.size for unit in units))
        for drawn in self._cluster.draw(self, settings, units):
            yield drawn
            progress.advance(1)
            if self._cancelled:
                return
        progress.end()


def units_of(
    prompts: Sequence[Prompt], samples: int, *, done: frozenset[SampleKey], first_index: int = 0, size: int
) -> list[Unit]:
    """Cut the missing samples into units of at most ``size``; a prompt's samples stay together as far as possible."""
    group = max(1, size // samples)
    stop = first_index + samples
    units = []
    for at in range(0, len(prompts), group):
        part = tuple(prompts[at : at + group])
        for first in range(first_index, stop, size):
            count = min(size, stop - first)
            keys = frozenset((prompt.id, index) for prompt in part for index in range(first, first + count))
            unit = Unit(part, first, count, keys & done)
            if unit.size:
                units.append(unit)
    return units
