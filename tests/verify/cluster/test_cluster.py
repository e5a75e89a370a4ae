"""Sampling spread over a real Dask cluster of local processes: the same samples, whoever dies; devices compared."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import pytest
from waiting import wait_until

pytest.importorskip("distributed")

from cluster_support import OTHER_DEVICE, STUCK, LocalCluster, local_cluster
from engine_support import SETTINGS

from edgedistill.bundle.bundle import Bundle
from edgedistill.errors import BundleError, MissingExtraError, VerifyError
from edgedistill.runtime.model import open_bundle
from edgedistill.verify.cluster import client as cluster_module
from edgedistill.verify.cluster import model as cluster_model
from edgedistill.verify.cluster import worker as cluster_worker
from edgedistill.verify.cluster.client import Cluster
from edgedistill.verify.cluster.model import SpreadBundle, units_of
from edgedistill.verify.cluster.worker import Place, Unit, locate, receive, received, versions
from edgedistill.verify.metrics.device_agreement import compare_devices, divergence
from edgedistill.verify.models.bundle import BundleModel
from edgedistill.verify.sampling.store import SampleStore, collect, store_header
from edgedistill.verify.types import Drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgedistill.verify.types import Prompt

SAMPLES = 6


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker is a process of its own, which a busy machine takes a while to start."""
    monkeypatch.setattr(cluster_module, "_CONNECT_S", 300.0)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """A scheduler and two workers."""
    with local_cluster(tmp_path_factory.mktemp("cluster")) as started:
        started.start("first")
        started.start("second")
        yield started


@pytest.fixture
def model(reasoner: Callable[[str], Path]) -> Iterator[BundleModel]:
    with BundleModel(open_bundle(reasoner("int4-b32"), threads=1)) as opened:
        yield opened


def wait_for(cluster: Cluster, count: int) -> None:
    """Until so many workers are there."""
    wait_until(
        lambda: len(cluster._nthreads()) == count, lambda: f"expected {count} workers, found {cluster._nthreads()}"
    )


def local(model: BundleModel, prompts: tuple[Prompt, ...]) -> list[Drawn]:
    return collect(model, prompts, SAMPLES, SETTINGS)


@pytest.mark.parametrize("mode", ["fast", "exact"])
def test_the_same_samples_as_here(
    running: LocalCluster, model: BundleModel, prompts: tuple[Prompt, ...], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_model, "UNIT", 4)
    settings = SETTINGS.replace(numerics=mode)
    with Cluster.connect(str(running.file)) as cluster:
        wait_for(cluster, 2)
        spread = SpreadBundle(model, cluster)
        drawn = collect(spread, prompts, SAMPLES, settings)
        assert {one.device for one in cluster._workers.values()}
    assert drawn == collect(model, prompts, SAMPLES, settings)


def test_a_worker_that_is_killed_in_the_middle_loses_nothing(
    running: LocalCluster,
    tmp_path: Path,
    model: BundleModel,
    prompts: tuple[Prompt, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_model, "UNIT", 2)
    mark = tmp_path / "mark"
    header = store_header(_suite(prompts), SETTINGS, model.identity)
    victim = running.start("victim", preload=STUCK, MARK=str(mark), ALLOWED="0")

    def kill() -> None:
        wait_until(mark.exists)
        os.kill(victim.pid, signal.SIGKILL)

    with Cluster.connect(str(running.file)) as cluster:
        wait_for(cluster, 3)
        killer = threading.Thread(target=kill, daemon=True)
        killer.start()
        with SampleStore.open(tmp_path / "x.samples", header) as store:
            drawn = collect(SpreadBundle(model, cluster), prompts, SAMPLES, SETTINGS, store)
        killer.join(timeout=300)
        assert not killer.is_alive(), "nobody was killed"
        wait_for(cluster, 2)
    assert drawn == local(model, prompts)
    with SampleStore.open(tmp_path / "x.samples", header) as again:
        assert len(again.drawn) == len(prompts) * SAMPLES


def test_what_arrived_is_kept_when_all_workers_die(
    tmp_path: Path, model: BundleModel, prompts: tuple[Prompt, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_model, "UNIT", 2)
    monkeypatch.setattr(cluster_module, "_PATIENCE_S", 1.0)
    monkeypatch.setattr(cluster_module, "_POLL_S", 0.3)
    header = store_header(_suite(prompts), SETTINGS, model.identity)
    with local_cluster(tmp_path) as started:
        only = started.start("only", preload=STUCK, MARK=str(tmp_path / "mark"), ALLOWED="1")
        with (
            Cluster.connect(str(started.file)) as cluster,
            SampleStore.open(tmp_path / "x.samples", header) as store,
        ):
            drawing = SpreadBundle(model, cluster).draw(prompts, SAMPLES, SETTINGS)
            for _ in range(2):
                store.append(next(drawing))
            only.kill()
            with pytest.raises(VerifyError, match="All workers are gone"):
                for drawn in drawing:
                    store.append(drawn)
    with SampleStore.open(tmp_path / "x.samples", header) as again:
        assert len(again.drawn) == 2
        assert collect(model, prompts, SAMPLES, SETTINGS, again) == local(model, prompts)


def test_devices_that_differ_are_told_apart_and_compared(
    tmp_path: Path, model: BundleModel, prompts: tuple[Prompt, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    with local_cluster(tmp_path) as started:
        started.start("other", preload=OTHER_DEVICE)
        with Cluster.connect(str(started.file)) as cluster:
            place = Place(model.model.bundle.identity(), (), tuple(versions().items()))
            (worker,) = cluster._nthreads()
            assert cluster._on(worker, locate, place) is None
            monkeypatch.setattr(cluster, "_paths", lambda bundle: ("/nowhere",))
            report = cluster.compare_devices(SpreadBundle(model, cluster), prompts, SETTINGS)
            assert "other-cache" in cluster._on(worker, locate, place)
    assert [device.name for device in report.devices] == ["Other CPU (neon)"]
    (one,) = report.comparisons
    assert (one.second, one.replies) == ("Other CPU (neon)", len(prompts))
    assert one.parted > 0
    assert one.position is not None
    assert one.position >= 5
    assert "first at token" in report.sentences[1]


def test_equal_devices_give_equal_replies(
    running: LocalCluster, model: BundleModel, prompts: tuple[Prompt, ...]
) -> None:
    with Cluster.connect(str(running.file), compare=True) as cluster:
        wait_for(cluster, 2)
        report = SpreadBundle(model, cluster).devices(prompts, SETTINGS)
    assert sum(device.workers for device in report.devices) == 2
    assert len(report.comparisons) == 2
    assert all(one.parted == 0 and one.position is None for one in report.comparisons)
    assert "token for token" in report.sentences[1]


def test_a_cluster_that_is_not_there_or_empty_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_module, "_CONNECT_S", 0.5)
    with pytest.raises(VerifyError, match="No Dask scheduler answers"):
        Cluster.connect("tcp://127.0.0.1:1")
    with pytest.raises(VerifyError, match="No Dask scheduler answers"):
        Cluster.connect(str(tmp_path / "none.json"))
    with local_cluster(tmp_path) as started, pytest.raises(VerifyError, match="has no workers"):
        Cluster.connect(str(started.file))


def test_without_dask_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'distributed.*the extra 'cluster'"):
        Cluster.connect("tcp://127.0.0.1:1")


def test_workers_of_other_versions_are_refused(
    running: LocalCluster, model: BundleModel, prompts: tuple[Prompt, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "versions", lambda: {**versions(), "onnxruntime": "9.9"})
    with pytest.raises(VerifyError, match="onnxruntime"):
        Cluster.connect(str(running.file))


def test_units_cover_what_is_missing_once(prompts: tuple[Prompt, ...]) -> None:
    for samples, size in ((5, 64), (64, 64), (130, 64), (3, 2), (1, 1)):
        missing = [(prompt, tuple(range(at % 3, samples))) for at, prompt in enumerate(prompts)]
        units = units_of(missing, size)
        asked = [(prompt.id, index) for unit in units for prompt, indices in unit.missing for index in indices]
        assert asked == [(prompt.id, index) for prompt, indices in missing for index in indices]
        assert all(0 < unit.size <= size for unit in units)
    assert units_of([], size=64) == []


def test_a_bundle_that_arrives_damaged_is_not_taken(
    reasoner: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEDISTILL_CACHE", str(tmp_path))
    bundle = Bundle.open(reasoner("int4-b32"))
    key = bundle.identity()
    place = Place(key, (), tuple(versions().items()))
    for name in (*(entry.name for entry in bundle.manifest.files), "manifest.json"):
        data = (bundle.path / name).read_bytes()
        receive(key, "a", name, 0, bytes(len(data)) if name == "weights.bin" else data)
    with pytest.raises(BundleError, match="altered"):
        received(key, "a")
    assert locate(place) is None
    with pytest.raises(BundleError, match="not the name of a file"):
        receive(key, "a", "../x", 0, b"")
    assert not list(tmp_path.glob("bundles/*"))


def test_a_worker_refuses_in_words(reasoner: Callable[[str], Path], prompts: tuple[Prompt, ...]) -> None:
    unit = Unit(tuple((prompt, (0,)) for prompt in prompts))
    none = cluster_worker.draw_unit(Place("0" * 64, ("/nowhere",), tuple(versions().items())), SETTINGS, unit)
    assert none.missing
    other = cluster_worker.draw_unit(Place("0" * 64, (), (("edgedistill", "9"),)), SETTINGS, unit)
    assert "edgedistill" in other.message


def test_divergence_is_the_first_token_that_differs() -> None:
    assert divergence((1, 2, 3), (1, 2, 3)) is None
    assert divergence((1, 2, 3), (1, 4, 3)) == 1
    assert divergence((1, 2), (1, 2, 3)) == 2
    key, other = ("p", 0), ("q", 0)
    (found,) = compare_devices({"a": {key: (1, 2), other: (5,)}, "b": {key: (1, 3), other: (5,)}})
    assert (found.parted, found.prompt_id, found.position, found.mean_shared) == (1, "p", 1, 1.0)


def _suite(prompts: tuple[Prompt, ...]) -> Any:
    from edgedistill.verify.types import Suite

    return Suite("test", prompts)
