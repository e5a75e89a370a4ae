"""Measures what is missing for a prediction and keeps it.

Must not know: how a case is timed, what is predicted from it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.hardware import detect, memory_bandwidth
from edgedistill.runtime.session import SessionConfig
from edgedistill.speed import MatrixCase

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.progress import Progress
    from edgedistill.speed import LayerCase, StepModel
    from edgedistill.timings import Timings

_SAVE_EVERY = 8


def measure_missing(
    models: Sequence[StepModel], timings: Timings, progress: Progress, *, remeasure: bool = False
) -> int:
    """Time every case that ``models`` need and ``timings`` lacks; returns how many there were.

    What is measured is saved every few cases and at the end, also when it is interrupted.

    Args:
        models: Whose steps are to be predicted.
        timings: Of this machine; completed in place.
        progress: Receives cases.
        remeasure: Time all of them again.
    """
    wanted: dict[str, tuple[MatrixCase | LayerCase, StepModel]] = {}
    for model in models:
        for case in model.cases():
            if remeasure or case.key not in timings.seconds:
                wanted.setdefault(case.key, (case, model))
    probe = remeasure or timings.bandwidth_gbs is None
    if not wanted and not probe:
        return 0
    progress.begin("timing kernels", len(wanted) + probe, "items")
    try:
        if probe:
            timings.bandwidth_gbs = memory_bandwidth(timings.machine.threads, detect(probe=False).available_ram_bytes)
            progress.advance(1)
        for number, (key, (case, model)) in enumerate(wanted.items(), 1):
            timings.seconds[key] = _timed(case, model, timings.machine.threads)
            progress.advance(1)
            if number % _SAVE_EVERY == 0:
                timings.save()
    finally:
        timings.save()
    progress.end()
    return len(wanted)


def _timed(case: MatrixCase | LayerCase, model: StepModel, threads: int) -> float:
    from edgedistill.planning.kernels import time_matrix
    from edgedistill.planning.layers import time_layer

    config = SessionConfig.from_profile(model.profile.to_dict(), threads=threads)
    if isinstance(case, MatrixCase):
        return time_matrix(case, config)
    return time_layer(case, model.spec, model.profile, config)
