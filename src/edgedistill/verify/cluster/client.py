"""Spreads sampling over a Dask cluster, whose workers may be the devices that the bundle is for.

    >>> with Cluster.connect("tcp://192.168.1.5:8786") as cluster:
    ...     edgedistill.verify("my-bundle", reference="my-fp32-bundle", cluster=cluster)

The random numbers of a sample depend only on its key (prompt and index), so a sample is the same on every worker, and a
unit of work whose worker died can be drawn again by another. Samples are yielded as soon as their unit arrives.
Scoring, and references in PyTorch, stay on this machine.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edgedistill.errors import GenerationError, VerifyError
from edgedistill.extras import missing
from edgedistill.verify.cluster.worker import (
    SAME_VERSIONS,
    Place,
    Refusal,
    Survey,
    Unit,
    different,
    draw_unit,
    locate,
    receive,
    received,
    survey,
    versions,
)
from edgedistill.verify.metrics.device_agreement import Device, DeviceReport, compare_devices

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from edgedistill.bundle.bundle import Bundle
    from edgedistill.runtime.batch.request import DrawSettings
    from edgedistill.verify.models.bundle import BundleModel
    from edgedistill.verify.types import Drawn, Prompt

COMPARED_PROMPTS = 20
_PIECE = 16 << 20  # bytes of a file sent at a time
_POLL_S = 2.0
_PATIENCE_S = 60.0  # without any worker
_CONNECT_S = 10.0
_MOST_REFUSALS = 100  # units that found no bundle on their worker


class Cluster:
    """A connection to a Dask scheduler. Close it, or use it as a context manager.

    Args:
        client: A ``distributed.Client``.
        bundle_path: Path of the bundle on the workers; None: the path on this machine, or a copy that was sent to them.
        compare: Compare every worker with this machine, not only one of each kind of machine.
    """

    def __init__(self, client: Any, *, bundle_path: str | None = None, compare: bool = False) -> None:
        self._client = client
        self._bundle_path = bundle_path
        self._compare = compare
        self._workers: dict[str, Survey] = {}
        self._ready: set[tuple[str, str]] = set()  # (worker, key of a bundle that it has)

    @classmethod
    def connect(cls, address: str, *, bundle_path: str | None = None, compare: bool = False) -> Self:
        """Connect to the scheduler at ``address`` (tcp://HOST:PORT, or the path of a scheduler file).

        Raises:
            MissingExtraError: Dask is not installed.
            VerifyError: No scheduler there, no workers, or workers of other versions.
        """
        try:
            import distributed
        except ImportError as error:
            raise missing("Spreading samples over a cluster needs Dask, which is not installed.", "cluster") from error
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        target = {"address": address} if ":" in address else {"scheduler_file": address}
        if "scheduler_file" in target and not Path(address).is_file():  # Dask would wait for it
            raise VerifyError(
                f"No Dask scheduler answers at {address}: that is neither tcp://HOST:PORT nor a scheduler file.",
                hint="Start one with: dask scheduler --port 8786",
            )
        try:
            client = distributed.Client(**target, timeout=_CONNECT_S, set_as_default=False, name="edgedistill")
        except (OSError, ValueError, TimeoutError) as error:
            raise VerifyError(
                f"No Dask scheduler answers at {address}.", hint="Start one with: dask scheduler --port 8786"
            ) from error
        cluster = cls(client, bundle_path=bundle_path, compare=compare)
        try:
            cluster._meet(address)
        except BaseException:
            cluster.close()
            raise
        return cluster

    @property
    def devices(self) -> tuple[Device, ...]:
        """The kinds of machines among the workers."""
        counts = Counter(one.device for one in self._workers.values())
        details = {one.device: one.details for one in self._workers.values()}
        return tuple(Device(name, count, details[name]) for name, count in counts.items())

    def draw(
        self, model: BundleModel, settings: DrawSettings, units: Sequence[Unit], *, worker: str | None = None
    ) -> Iterator[Drawn]:
        """Yields the samples of ``units`` as they arrive, all drawn by one ``worker`` if it is given.

        Raises:
            GenerationError: A worker refused a unit or failed on it, or several workers died of it.
            VerifyError: The scheduler or all workers are gone, or a worker does not keep the bundle.
        """
        bundle = model.model.bundle
        place = Place(bundle.identity(), self._paths(bundle), tuple(versions().items()))
        arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        pending: dict[Any, Unit] = {}
        sent_again = 0

        def submit(unit: Unit) -> None:
            only = {} if worker is None else {"workers": [worker], "allow_other_workers": False}
            future = self._client.submit(draw_unit, place, settings, unit, pure=False, **only)
            pending[future] = unit
            future.add_done_callback(arrived.put)

        self._provide(place, bundle, [worker] if worker else list(self._nthreads()))
        alone_since: float | None = None
        try:
            for unit in units:
                submit(unit)
            while pending:
                try:
                    future = arrived.get(timeout=_POLL_S)
                except queue.Empty:
                    alone_since = self._still_there(alone_since)
                    continue
                unit, alone_since = pending.pop(future), None
                found = self._result(future, unit)
                if isinstance(found, Refusal):
                    # A worker that joined later, or came back without its disk.
                    sent_again += 1
                    if sent_again > _MOST_REFUSALS:
                        raise VerifyError(f"The worker on {found.host} does not keep the bundle that it was sent.")
                    self._ready.clear()
                    self._provide(place, bundle, list(self._nthreads()))
                    submit(unit)
                    continue
                yield from found
        finally:
            with contextlib.suppress(Exception):  # the connection may be what ended it
                self._client.cancel(list(pending), force=True)

    def compare_devices(self, model: BundleModel, prompts: Sequence[Prompt], settings: DrawSettings) -> DeviceReport:
        """Sample 0 of some prompts on this machine and on a worker of every other kind, token by token."""
        here = survey()
        chosen: dict[str, str | None] = {here.device: None}
        for address, one in self._workers.items():
            name = f"{one.device} at {address}" if self._compare else one.device
            if name not in chosen and address in self._nthreads():
                chosen[name] = address
        if len(chosen) == 1:
            return DeviceReport(self.devices)
        asked = tuple(prompts[:: max(1, len(prompts) // COMPARED_PROMPTS)][:COMPARED_PROMPTS])
        replies = {}
        for name, where in chosen.items():
            if where is None:
                drawn: Iterable[Drawn] = model.here.draw(asked, 1, settings)
            else:
                drawn = self.draw(model, settings, [Unit(tuple((prompt, (0,)) for prompt in asked))], worker=where)
            replies[name] = {one.key: one.token_ids for one in drawn}
        return DeviceReport(self.devices, compare_devices(replies))

    # ---- workers and their bundles --------------------------------------------------------------------------

    def _meet(self, address: str) -> None:
        until = time.monotonic() + _CONNECT_S
        while not self._nthreads():
            if time.monotonic() > until:
                raise VerifyError(
                    f"The scheduler at {address} has no workers.",
                    hint=f"Start some with: dask worker {address} --nthreads 1",
                )
            time.sleep(0.1)
        answers = self._client.run(survey, on_error="return")
        for worker, found in answers.items():
            if not isinstance(found, Survey):
                raise VerifyError(
                    f"Worker {worker} cannot run edgedistill ({type(found).__name__}: {found}).",
                    hint="Install this version of edgedistill, with the extra `cluster`, where the worker runs.",
                )
            if (wrong := different(found.versions, versions())) is not None:
                raise VerifyError(f"Worker {worker} ({found.host}) {wrong}", hint=SAME_VERSIONS)
        self._workers = answers

    def _nthreads(self) -> dict[str, int]:
        found: dict[str, int] = self._client.nthreads()
        return found

    def _paths(self, bundle: Bundle) -> tuple[str, ...]:
        here = str(bundle.path.resolve())
        return (here,) if self._bundle_path is None else (self._bundle_path, here)

    def _provide(self, place: Place, bundle: Bundle, workers: Sequence[str]) -> None:
        """Send the bundle to the workers that lack it, one after the other, since some of them may share a disk."""
        for worker in workers:
            if (worker, place.key) in self._ready:
                continue
            if self._on(worker, locate, place) is None:
                self._send(worker, place.key, bundle)
            self._ready.add((worker, place.key))

    def _send(self, worker: str, key: str, bundle: Bundle) -> None:
        sender = secrets.token_hex(8)
        for entry in bundle.manifest.files:
            self._send_file(worker, key, sender, bundle, entry.name)
        self._send_file(worker, key, sender, bundle, "manifest.json")
        self._on(worker, received, key, sender)

    def _send_file(self, worker: str, key: str, sender: str, bundle: Bundle, name: str) -> None:
        offset = 0
        with (bundle.path / name).open("rb") as stream:
            while (data := stream.read(_PIECE)) or offset == 0:
                self._on(worker, receive, key, sender, name, offset, data)
                offset += len(data)
                if not data:
                    return

    def _on(self, worker: str, function: Any, *arguments: Any) -> Any:
        """Call ``function`` on one worker, beside its tasks; returns "" if that worker is gone."""
        try:
            return self._client.run(function, *arguments, workers=[worker])[worker]
        except Exception as error:
            if worker not in self._nthreads():
                return ""
            raise VerifyError(
                f"Worker {worker} cannot take the bundle: {error}.",
                hint="Make room there, or copy the bundle and give --dask-bundle PATH.",
            ) from error

    # ---- what comes back ------------------------------------------------------------------------------------

    def _result(self, future: Any, unit: Unit) -> list[Drawn] | Refusal:
        first = unit.missing[0][0].id
        if future.status == "cancelled":
            raise VerifyError(
                "The connection to the Dask scheduler was lost.", hint="Run the same command again: it goes on."
            )
        if future.status == "error":
            error = future.exception()
            if type(error).__name__ == "KilledWorker":
                raise GenerationError(
                    f"The samples of `{first}` ended the process of several workers, perhaps for lack of memory.",
                    hint="Start fewer workers on a machine; what was drawn is kept.",
                )
            raise GenerationError(f"A worker failed on `{first}`: {type(error).__name__}: {error}.")
        found: list[Drawn] | Refusal = future.result()
        if isinstance(found, Refusal) and not found.missing:
            raise GenerationError(f"The worker on {found.host} says: {found.message}", hint=found.hint)
        return found

    def _still_there(self, alone_since: float | None) -> float | None:
        """The monotonic time in seconds at which the last worker was lost; None if there are workers."""
        try:
            if self._nthreads():
                return None
        except Exception as error:
            raise VerifyError(
                "The connection to the Dask scheduler was lost.", hint="Run the same command again: it goes on."
            ) from error
        now = time.monotonic()
        if alone_since is not None and now - alone_since > _PATIENCE_S:
            raise VerifyError(
                "All workers are gone; the samples so far are kept.",
                hint="Start some and run the same command again: it goes on.",
            )
        return now if alone_since is None else alone_since

    def close(self) -> None:
        """Disconnect; the cluster keeps running."""
        with contextlib.suppress(Exception):
            self._client.close(timeout=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
