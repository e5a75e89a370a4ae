"""A model for verification whose samples a cluster draws: missing samples are cut into units of work for its
workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.verify.cluster.worker import Unit
from edgedistill.verify.models.bundle import BundleModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgedistill.runtime.batch.request import DrawSettings
    from edgedistill.verify.cluster.client import Cluster
    from edgedistill.verify.metrics.device_agreement import DeviceReport
    from edgedistill.verify.sampling.protocol import Missing, SampledModel
    from edgedistill.verify.types import Drawn, Prompt

UNIT = 64
"""Samples per unit of work: two full batches, and little to draw again if a worker dies."""


def spread_over(cluster: Cluster | None, model: SampledModel) -> SampledModel:
    """The model with its sampling spread over ``cluster``; unchanged without a cluster, or if it is not a bundle."""
    return SpreadBundle(model, cluster) if cluster is not None and isinstance(model, BundleModel) else model


class SpreadBundle(BundleModel):
    """A bundle whose samples are drawn by the workers of a cluster; everything else runs on this machine."""

    def __init__(self, model: BundleModel, cluster: Cluster) -> None:
        super().__init__(model.model)
        self._here = model
        self._cluster = cluster

    @property
    def here(self) -> BundleModel:
        """The same model, sampled on this machine."""
        return self._here

    def devices(self, prompts: Sequence[Prompt], settings: DrawSettings) -> DeviceReport:
        """Which devices drew the samples, and how far their replies agree."""
        return self._cluster.compare_devices(self, prompts, settings)

    def draw_missing(self, missing: Sequence[Missing], settings: DrawSettings) -> Iterator[Drawn]:
        """See ``SampledModel``."""
        for prompt, _ in missing:
            self.replies.encode(prompt, settings.thinking)  # a prompt that is too long is refused before work begins
        for drawn in self._cluster.draw(self, settings, units_of(missing, UNIT)):
            yield drawn
            if self.cancelled:
                return


def units_of(missing: Sequence[Missing], size: int) -> list[Unit]:
    """Cut samples into units of at most ``size``; those of a prompt stay together as far as possible."""
    units: list[Unit] = []
    for prompt, indices in missing:
        for at in range(0, len(indices), size):
            part = (prompt, indices[at : at + size])
            if units and units[-1].size + len(part[1]) <= size:
                units[-1] = Unit((*units[-1].missing, part))
            else:
                units.append(Unit((part,)))
    return units
