"""A Dask cluster as a user starts it: a scheduler and workers in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

# Loaded into a worker to make it another kind of device: it calls itself so, and its noise is off from some position.
# (Dask runs a preloaded file more than once.)
OTHER_DEVICE = """
import dataclasses
import edgedistill.system.hardware as hardware
import edgedistill.runtime.sampling as choice
if not hasattr(choice, "patched"):
    choice.patched = True
    detect, noise = hardware.detect, choice.gumbel
    hardware.detect = lambda **options: dataclasses.replace(detect(**options), cpu="Other CPU", isa=("neon",))
    choice.gumbel = lambda keys, positions, ids: noise(keys, positions + 1000 * (positions >= 5), ids)
"""

# Loaded into a worker: after some units it says so, and every further one takes for ever.
STUCK = """
import os, time
from edgedistill.verify.models.bundle import BundleModel
if not hasattr(BundleModel, "patched"):
    BundleModel.patched = True
    real, calls = BundleModel.draw_missing, []
    def draw_missing(*arguments, **options):
        calls.append(1)
        if len(calls) > int(os.environ["ALLOWED"]):
            open(os.environ["MARK"], "w").close()
            time.sleep(600)
        return real(*arguments, **options)
    BundleModel.draw_missing = draw_missing
"""


class LocalCluster:
    """A running scheduler; ``start`` adds workers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "scheduler.json"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._run("scheduler", "--port", "0", "--host", "127.0.0.1", "--scheduler-file", str(self.file))
        self._wait(self.file.exists)

    def start(self, name: str, *, preload: str | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """A worker with one thread and a cache of its own."""
        arguments = ["--scheduler-file", str(self.file), "--nthreads", "1", "--no-nanny", "--name", name]
        arguments += ["--local-directory", str(self.directory / f"{name}-scratch")]
        if preload is not None:
            path = self.directory / f"preload_{name}.py"
            path.write_text(preload)
            arguments += ["--preload", str(path)]
        cache = str(self.directory / f"{name}-cache")
        return self._run("worker", *arguments, EDGEDISTILL_CACHE=cache, **environment)

    def _run(self, what: str, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard", *arguments]
        env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        log = (self.directory / f"{what}-{len(self.processes)}.log").open("wb")
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env)
        self.processes.append(process)
        return process

    def _wait(self, condition: Callable[[], object]) -> None:
        wait_until(condition, "the scheduler did not start")

    def stop(self) -> None:
        """End all that was started."""
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait(timeout=300)


@contextmanager
def local_cluster(directory: Path) -> Iterator[LocalCluster]:
    """A scheduler without workers yet."""
    cluster = LocalCluster(directory)
    try:
        yield cluster
    finally:
        cluster.stop()
