"""The sampler of verification, stopped at once: nobody waits on a page for samples of thousands of tokens to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedistill.verify.models.bundle import BundleModel

if TYPE_CHECKING:
    import threading

    from edgedistill.runtime.batch.scheduler import Engine
    from edgedistill.runtime.model import Model


class StoppableModel(BundleModel):
    """Draws samples until ``cancel`` is set; those that have not ended by then are not drawn."""

    def __init__(self, model: Model, cancel: threading.Event) -> None:
        super().__init__(model)
        self._cancel = cancel

    def engine(self, *arguments: Any, **options: Any) -> Engine:
        """The engine of verification, stopped by the event."""
        made = super().engine(*arguments, **options)
        made.cancel = self._cancel
        return made
