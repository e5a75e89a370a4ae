"""Measures what is missing for a prediction and keeps it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from edgedistill.estimate.speed import MatrixCase
from edgedistill.planning.room import Room, copies_in, has_room, wanted_copies, weight_bytes
from edgedistill.runtime.session import SessionConfig
from edgedistill.system.hardware import detect, memory_bandwidth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.estimate.speed import LayerCase, StepModel
    from edgedistill.estimate.timings import Timings
    from edgedistill.progress import Progress

    _Cases = dict[str, tuple[MatrixCase | LayerCase, StepModel]]

_SAVE_EVERY = 8


def measure_missing(
    models: Sequence[StepModel], timings: Timings, progress: Progress, *, remeasure: bool = False
) -> int:
    """Time every case that ``models`` need and ``timings`` lacks; returns how many there were.

    What is measured is saved every few cases and at the end, also when it is interrupted. Cases that were timed over
    fewer weights than they ask for, because there was no room, are timed again once there is.

    Args:
        models: Whose steps are to be predicted.
        timings: Of this machine; completed in place.
        progress: Receives cases.
        remeasure: Time all of them again.

    Raises:
        OutputError: The disk takes too few weights for a timing.
        BudgetError: Memory does.
    """
    wanted: _Cases = {}
    for model in models:
        for case in model.cases():
            if remeasure or case.key in timings.over or case.key not in timings.seconds:
                wanted.setdefault(case.key, (case, model))
    if wanted:
        wanted = _possible(wanted, Room.now(), set() if remeasure else set(timings.over))
    probe = remeasure or timings.bandwidth_gbs is None
    if not wanted and not probe:
        return 0
    progress.begin("timing kernels", len(wanted) + probe, "items")
    try:
        if probe:
            timings.bandwidth_gbs = memory_bandwidth(timings.machine.threads, detect(probe=False).available_ram_bytes)
            progress.advance(1)
        for number, (key, (case, model)) in enumerate(wanted.items(), 1):
            timings.seconds[key], over = _timed(case, model, timings.machine.threads)
            timings.over.pop(key, None)
            if over is not None:
                timings.over[key] = over
            progress.advance(1)
            if number % _SAVE_EVERY == 0:
                timings.save()
    finally:
        timings.save()
    progress.end()
    return len(wanted)


def _possible(wanted: _Cases, room: Room, over: set[str]) -> _Cases:
    """Without those in ``over`` that have no room yet; what cannot be timed is refused before anything is."""
    found: _Cases = {}
    for key, (case, model) in wanted.items():
        if isinstance(case, MatrixCase):
            if key in over and not has_room(case, room):
                continue
            copies_in(case, room)
        found[key] = (case, model)
    return found


def _timed(case: MatrixCase | LayerCase, model: StepModel, threads: int) -> tuple[float, int | None]:
    """Seconds of a case, and bytes of weights that the timing went through if they are fewer than it asks for."""
    from edgedistill.planning.kernels import time_matrix
    from edgedistill.planning.layers import time_layer

    config = SessionConfig.from_profile(model.profile.to_dict(), threads=threads)
    room = Room.now()
    try:
        if not isinstance(case, MatrixCase):
            return time_layer(case, model.spec, model.profile, config), None
        copies = copies_in(case, room)
        seconds = time_matrix(case, config, copies)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise room.no_disk() from error  # somebody else filled it meanwhile
    return seconds, None if copies == wanted_copies(case) else copies * weight_bytes(case)
