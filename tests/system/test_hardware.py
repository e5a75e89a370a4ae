from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from edgedistill.profile.profile import ISA_FLAGS, Profile, list_profiles, load_profile
from edgedistill.system import hardware
from edgedistill.system.cgroup import Limits, read_limits
from edgedistill.system.hardware import GB, Hardware, detect, fit, memory_bandwidth

LAPTOP = Hardware(
    cpu="Some Laptop CPU",
    machine="x86_64",
    physical_cores=4,
    logical_cores=8,
    isa=("avx2", "avx_vnni"),
    ram_bytes=int(8.1 * GB),
    available_ram_bytes=6 * GB,
    free_disk_bytes=100 * GB,
    bandwidth_gbs=30.0,
)
PI = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes asimdhp asimddp\nCPU part\t: 0xd0b\n"


@pytest.fixture(autouse=True)
def no_user_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def every_profile() -> list[Profile]:
    return [load_profile(entry.name) for entry in list_profiles()]


def write(root: Path, path: str, text: str) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def test_this_machine() -> None:
    found = detect(probe=False)
    assert 1 <= found.physical_cores <= found.logical_cores
    assert 0 < found.available_ram_bytes <= found.ram_bytes <= psutil.virtual_memory().total
    assert found.free_disk_bytes > 0
    assert found.bandwidth_gbs is None
    assert found.cpu
    assert set(found.isa) <= set(ISA_FLAGS)
    assert json.loads(json.dumps(found.to_dict()))["isa"] == list(found.isa)


def test_container_limits_and_an_output_that_does_not_exist_yet(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", PI)
    write(tmp_path, "proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    write(tmp_path, "proc/self/cgroup", "0::/box\n")
    write(tmp_path, "sys/fs/cgroup/box/memory.max", str(50_000_000))
    write(tmp_path, "sys/fs/cgroup/box/memory.current", str(20_000_000))
    write(tmp_path, "sys/fs/cgroup/box/cpu.max", "50000 100000")
    found = detect(root=tmp_path, disk=tmp_path / "not" / "yet", probe=False)
    assert found.cpu == "Raspberry Pi 5 Model B Rev 1.0"
    assert found.isa == ("neon", "dotprod")
    assert (found.ram_bytes, found.available_ram_bytes) == (50_000_000, 30_000_000)
    assert (found.physical_cores, found.logical_cores) == (1, 1)


def test_cgroup_version_two_takes_the_tightest_ancestor(tmp_path: Path) -> None:
    write(tmp_path, "proc/self/cgroup", "0::/outer/inner\n")
    write(tmp_path, "sys/fs/cgroup/outer/memory.max", "1000")
    write(tmp_path, "sys/fs/cgroup/outer/memory.current", "900")
    write(tmp_path, "sys/fs/cgroup/outer/memory.stat", "anon 500\ninactive_file 400\n")
    write(tmp_path, "sys/fs/cgroup/outer/inner/memory.max", "max")
    write(tmp_path, "sys/fs/cgroup/outer/cpu.max", "150000 100000\n")
    write(tmp_path, "sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n")
    assert read_limits(tmp_path) == Limits(1000, 500, 1.5)


def test_cgroup_version_one_inside_a_container(tmp_path: Path) -> None:
    """The path is the host's and does not exist inside; the limits are at the top of the mount."""
    write(tmp_path, "proc/self/cgroup", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:cpuset:/\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", "2000")
    write(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", "500")
    write(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000")
    write(tmp_path, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
    assert read_limits(tmp_path) == Limits(2000, 1500, 2.0)


def test_no_limits(tmp_path: Path) -> None:
    assert read_limits(tmp_path) == Limits()
    write(tmp_path, "proc/self/cgroup", "4:memory:/\n3:cpu:/\nnonsense\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", str(2**63 - 4096))
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    write(tmp_path, "sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert read_limits(tmp_path) == Limits()


def test_the_probe_counts_what_it_reads_and_gives_up_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    assert memory_bandwidth(2, 100 * 1024 * 1024) is None
    clock = iter(range(1000))
    monkeypatch.setattr(hardware, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    # One thread: begun at 0, started at 1, one pass checked at 2 and found late, ended at 3.
    size = 32 * 1024 * 1024
    assert memory_bandwidth(1, 4 * size, seconds=1.0) == size / 2 / GB


@pytest.mark.parametrize(
    ("changes", "best"),
    [
        ({}, "laptop-cpu"),
        ({"ram_bytes": int(3.9 * GB), "physical_cores": 2}, "low-spec-laptop"),
        ({"ram_bytes": 16 * GB}, "mini-pc"),
        ({"ram_bytes": 32 * GB}, "mini-pc"),
        ({"ram_bytes": 8 * GB, "isa": ("neon", "dotprod")}, "arm-cpu"),
        ({"ram_bytes": 128 * GB, "physical_cores": 32, "isa": ("avx2", "avx512f", "avx512_vnni")}, "server-cpu"),
        ({"ram_bytes": 25 * GB, "physical_cores": 2}, "mini-pc"),
    ],
)
def test_the_best_profile(changes: dict[str, Any], best: str | None) -> None:
    ranking = fit(replace(LAPTOP, **changes), every_profile())
    assert ranking[0].fits
    assert ranking[0].profile.name == best
    assert [entry.fits for entry in ranking] == sorted((entry.fits for entry in ranking), reverse=True)


def test_nothing_fits_a_toaster() -> None:
    toaster = replace(LAPTOP, ram_bytes=GB // 2, isa=())
    for entry in fit(toaster, every_profile()):
        assert not entry.fits
        assert any("which this CPU lacks" in reason for reason in entry.reasons)
        assert any("0.5 GB of memory, too little for" in reason for reason in entry.reasons)


def test_reasons_tell_what_is_short_now() -> None:
    machine = replace(LAPTOP, physical_cores=2, available_ram_bytes=GB, free_disk_bytes=2 * GB)
    (entry,) = fit(machine, [load_profile("laptop-cpu")])
    assert entry.fits
    text = "; ".join(entry.reasons)
    assert "2 of the 4 cores" in text
    assert "only 1.0 GB of memory are free now; it may use 5.8 GB" in text
    assert "only 2.0 GB of disk are free; its bundles may take 5 GB" in text
    assert "not run on the hardware it describes" in text
    (entry,) = fit(machine, [replace(load_profile("laptop-cpu"), verified_on="my desk")])
    assert "run on my desk" in entry.reasons


def test_a_real_probe_is_within_what_memory_can_do() -> None:
    found = memory_bandwidth(1, 4 * 10**9, seconds=0.2)
    assert found is not None
    assert 0.1 < found < 1000
