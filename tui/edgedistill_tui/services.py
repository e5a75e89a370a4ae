"""Everything that the application gets from outside: how to open bundles, where data are kept. Tests replace it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgedistill.runtime.measure import latency_trace as runtime_trace
from edgedistill_tui.data.bundles import Registry
from edgedistill_tui.data.config import Config, ConfigError, config_file, data_dir
from edgedistill_tui.data.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgedistill.progress import Progress
    from edgedistill.runtime.measure.latency_trace import TraceEvent
    from edgedistill_tui.engine import Engine


def this_machine() -> str:
    """The processor and how much of it this process may use."""
    from edgedistill.system.hardware import detect

    hardware = detect(probe=False)
    return f"{hardware.cpu}, {hardware.physical_cores} cores"


@dataclass(slots=True)
class Services:
    """Everything behind the screens.

    Attributes:
        open_engine: Loads a bundle; called in a thread. Raises EdgedistillError.
        store, config, registry: Sessions, settings, known bundles.
        make_default: Exports the default bundle into a directory and gives its path; None where that is not offered.
        notices: Sentences about problems before there was a screen to show them.
        trace: Measures a bundle (``runtime.measure.latency_trace.trace``).
        machine: Name of the machine; runs of the profiler are compared on the same one.
    """

    open_engine: Callable[[Path], Engine]
    store: Store
    config: Config
    registry: Registry
    make_default: Callable[[Path, Progress], Path] | None = None
    notices: list[str] = field(default_factory=list)
    trace: Callable[..., Iterator[TraceEvent]] = runtime_trace.trace
    machine: str = field(default_factory=this_machine)

    @classmethod
    def of_user(
        cls,
        open_engine: Callable[[Path], Engine],
        make_default: Callable[[Path, Progress], Path] | None = None,
    ) -> Services:
        """The user's own files; settings that cannot be read are replaced by defaults, with a notice."""
        notices: list[str] = []
        try:
            config = Config.load(config_file())
        except ConfigError as error:
            # Without a path nothing is written over what the user may want to correct.
            config = Config()
            notices.append(f"The default settings are used: {error}")
        data = data_dir()
        registry = Registry(data / "bundles.json")
        return cls(open_engine, Store(data / "sessions.db"), config, registry, make_default, notices)
