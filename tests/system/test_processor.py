"""Processors as each system describes them, and the profile that each of these machines gets."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from edgedistill.architecture.spec import LayerSpec, LogicalWeight, ModelSpec, RopeSpec
from edgedistill.cli import main
from edgedistill.estimate.limits import check, fits
from edgedistill.profile.profile import ISA_FLAGS, list_profiles, load_profile
from edgedistill.system.hardware import GB, Hardware, detect, fit
from edgedistill.system.processor import isa_of_cpuinfo, isa_of_sysctl

GIB = 2**30
N100 = "processor\t: 0\nmodel name\t: Intel(R) N100\nflags\t\t: fpu sse avx2 avx_vnni f16c\n"
CORTEX_A76 = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes asimdhp asimddp\nCPU part\t: 0xd0b\n"
CORTEX_A72 = "processor\t: 0\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU part\t: 0xd08\n"
ORIN = "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\nFeatures\t: fp asimd aes asimdhp asimddp\n"
NEOVERSE_N1 = "processor\t: 0\nFeatures\t: fp asimd aes asimdhp asimddp ssbs\nCPU part\t: 0xd0c\n"
NEOVERSE_V1 = "processor\t: 0\nFeatures\t: fp asimd aes asimdhp asimddp sve i8mm bf16\nCPU part\t: 0xd40\n"
INTEL_MAC = """hw.optional.floatingpoint: 1
hw.optional.avx1_0: 1
hw.optional.avx2_0: 1
hw.optional.avx512f: 0
machdep.cpu.brand_string: Intel(R) Core(TM) i5-8257U CPU @ 1.40GHz
"""
M1 = "hw.optional.neon: 1\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 0\n"
M2 = M1.replace("I8MM: 0", "I8MM: 1")
MAC = "machdep.cpu.brand_string: Apple {}\n"


@dataclass(frozen=True)
class Machine:
    """``source``: /proc/cpuinfo, what sysctl prints, or the numbers of winnt.h. ``files``: more below ``root``."""

    system: str
    machine: str
    source: Any
    cores: int
    ram: float
    name: str = ""
    files: tuple[tuple[str, str], ...] = ()


def board(name: str) -> tuple[tuple[str, str], ...]:
    return (("proc/device-tree/model", f"{name}\0"),)


def amazon(instance: str) -> tuple[tuple[str, str], ...]:
    return (("sys/class/dmi/id/sys_vendor", "Amazon EC2\n"), ("sys/class/dmi/id/product_name", f"{instance}\n"))


PI_5, PI_4 = (board(f"Raspberry Pi {n} Model B Rev 1.{n}") for n in (5, 4))
JETSON = board("NVIDIA Jetson Orin Nano Developer Kit")
GRAVITON_3, GRAVITON_2 = amazon("m7g.4xlarge"), amazon("c6g.xlarge")
WINDOWS, MACOS, LINUX = "Windows", "Darwin", "Linux"
# Memory as these systems report it: what firmware and graphics keep is off.
MACHINES = {
    "Windows laptop, 8 GB": (Machine(WINDOWS, "AMD64", {40}, 4, 7.7, "Intel(R) Core(TM) i5-8250U"), "laptop-cpu"),
    "Windows laptop, 16 GB": (Machine(WINDOWS, "AMD64", {40, 41}, 8, 15.3, "AMD Ryzen 7 7840U"), "mini-pc"),
    "Windows laptop, 4 GB": (Machine(WINDOWS, "AMD64", {40}, 2, 3.8, "Intel(R) Celeron(R)"), "low-spec-laptop"),
    "Windows on ARM": (Machine(WINDOWS, "ARM64", {19, 43, 66}, 10, 15.6, "Snapdragon(R) X Elite"), "arm-cpu-16gb"),
    "Windows on ARM, 8 GB": (Machine(WINDOWS, "ARM64", {19, 43}, 8, 7.6, "Snapdragon (TM) 8cx"), "arm-cpu"),
    "Intel Mac, 8 GB": (Machine(MACOS, "x86_64", INTEL_MAC, 4, 8.0), "laptop-cpu"),
    "Intel Mac, 16 GB": (Machine(MACOS, "x86_64", INTEL_MAC, 4, 16.0), "mini-pc"),
    "M1, 8 GB": (Machine(MACOS, "arm64", M1 + MAC.format("M1"), 8, 8.0), "apple-silicon"),
    "M2, 16 GB": (Machine(MACOS, "arm64", M2 + MAC.format("M2"), 8, 16.0), "apple-silicon-16gb"),
    "M4 Max, 128 GB": (Machine(MACOS, "arm64", M2 + MAC.format("M4 Max"), 16, 128.0), "apple-silicon-16gb"),
    "Pi 5, 4 GB": (Machine(LINUX, "aarch64", CORTEX_A76, 4, 3.95, files=PI_5), "raspberry-pi-5-4gb"),
    "Pi 5, 8 GB": (Machine(LINUX, "aarch64", CORTEX_A76, 4, 7.87, files=PI_5), "raspberry-pi-5"),
    "Pi 5, 16 GB": (Machine(LINUX, "aarch64", CORTEX_A76, 4, 15.8, files=PI_5), "raspberry-pi-5"),
    "Pi 4, 4 GB": (Machine(LINUX, "aarch64", CORTEX_A72, 4, 3.7, files=PI_4), "arm-cpu-4gb"),
    "Jetson Orin Nano": (Machine(LINUX, "aarch64", ORIN, 6, 7.4, files=JETSON), "jetson-orin"),
    "Graviton3, 64 GB": (Machine(LINUX, "aarch64", NEOVERSE_V1, 16, 61.8, files=GRAVITON_3), "arm-server"),
    "Graviton2, 8 GB": (Machine(LINUX, "aarch64", NEOVERSE_N1, 4, 7.6, files=GRAVITON_2), "arm-cpu"),
    "Graviton3, 16 GB": (Machine(LINUX, "aarch64", NEOVERSE_V1, 4, 15.5, files=GRAVITON_3), "arm-cpu-16gb"),
    "Linux laptop, 8 GB": (Machine(LINUX, "x86_64", N100, 4, 7.6), "laptop-cpu"),
}


@pytest.fixture(autouse=True)
def no_user_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def become(machine: Machine, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that ``detect`` asks answers as on ``machine``."""
    monkeypatch.setattr(platform, "system", lambda: machine.system)
    monkeypatch.setattr(platform, "machine", lambda: machine.machine)
    monkeypatch.setattr(platform, "processor", lambda: "")
    ram = int(machine.ram * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=ram, available=ram * 3 // 4))
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: machine.cores)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(machine.cores)), raising=False)
    if machine.system == LINUX:
        for path, text in (("proc/cpuinfo", machine.source), *machine.files):
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
    elif machine.system == MACOS:
        done = subprocess.CompletedProcess([], 0, machine.source, "")
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    else:
        kernel = SimpleNamespace(IsProcessorFeaturePresent=lambda number: int(number in machine.source))
        monkeypatch.setattr(ctypes, "windll", SimpleNamespace(kernel32=kernel), raising=False)
        registry = SimpleNamespace(
            HKEY_LOCAL_MACHINE=0,
            OpenKey=lambda *_: nullcontext(0),
            QueryValueEx=lambda *_: (f"{machine.name}   ", 1),
        )
        monkeypatch.setitem(sys.modules, "winreg", registry)


def small_model() -> tuple[ModelSpec, list[LogicalWeight]]:
    """Dimensions of Qwen3-0.6B, which each of the machines is to run."""
    spec = ModelSpec(
        family="qwen3",
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        vocab_size=151936,
        max_position_embeddings=40960,
        rms_norm_eps=1e-6,
        activation="silu",
        tie_word_embeddings=True,
        attention_scale=128**-0.5,
        layers=tuple(LayerSpec(i, RopeSpec((1.0,) * 64)) for i in range(28)),
    )
    shapes = {
        "attn.qkv": (4096, 1024),
        "attn.o": (1024, 2048),
        "mlp.gate": (3072, 1024),
        "mlp.up": (3072, 1024),
        "mlp.down": (1024, 3072),
    }
    weights = [LogicalWeight("embed", "embedding", (151936, 1024), (), aliases=("lm_head",))]
    weights += [LogicalWeight(f"layers.{i}.{n}", "linear", shape, ()) for i in range(28) for n, shape in shapes.items()]
    return spec, weights


@pytest.mark.parametrize(("machine", "expected"), MACHINES.values(), ids=MACHINES.keys())
def test_the_profile_of_a_machine_and_that_its_bundles_fit(
    machine: Machine, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(machine, tmp_path, monkeypatch)
    found = detect(root=tmp_path, probe=False)
    assert found.isa_known
    best = fit(found, [load_profile(entry.name) for entry in list_profiles()])[0]
    assert best.fits
    assert best.profile.name == expected
    assert not best.profile.tested
    target, session = best.profile.target, best.profile.session
    assert target.ram_gb * GB < 0.8 * found.ram_bytes, "the system and other programs need the rest"
    assert session.intra_op_num_threads <= found.physical_cores
    assert fits(check(*small_model(), best.profile), best.profile)


def test_names_are_those_of_the_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {
        "Windows on ARM": "Snapdragon(R) X Elite",
        "Intel Mac, 8 GB": "Intel(R) Core(TM) i5-8257U CPU @ 1.40GHz",
        "Jetson Orin Nano": "NVIDIA Jetson Orin Nano Developer Kit",
        "Graviton3, 64 GB": "Amazon EC2 m7g.4xlarge",
        "Linux laptop, 8 GB": "Intel(R) N100",
    }
    for label, name in expected.items():
        root = tmp_path / label
        with monkeypatch.context() as patch:
            become(MACHINES[label][0], root, patch)
            assert detect(root=root, probe=False, disk=tmp_path).cpu == name


def test_flags_of_every_source() -> None:
    everything = "flags : avx2 avx512f avx_vnni avx512_vnni amx_int8\nFeatures : asimd asimddp i8mm sve"
    assert isa_of_cpuinfo(everything) == ISA_FLAGS
    assert isa_of_cpuinfo("flags : fpu sse2") == ()
    assert isa_of_cpuinfo("model name : avx2 special") is None
    assert isa_of_cpuinfo("") is None
    assert isa_of_sysctl({"hw.optional.avx2_0": "1", "hw.optional.avx512vnni": "1"}, "x86_64") == (
        "avx2",
        "avx512_vnni",
    )
    assert isa_of_sysctl({"hw.optional.arm.FEAT_I8MM": "1"}, "arm64") == ("neon", "dotprod", "i8mm")
    assert isa_of_sysctl({}, "arm64") == ("neon", "dotprod")
    assert isa_of_sysctl({"hw.optional.avx2_0": "0"}, "x86_64") == ()
    assert isa_of_sysctl({}, "x86_64") is None


def no_program(*_: object, **__: object) -> None:
    raise FileNotFoundError("/usr/sbin/sysctl")


def too_slow(*_: object, **__: object) -> None:
    raise subprocess.TimeoutExpired("sysctl", 10)


@pytest.mark.parametrize("failure", [no_program, too_slow])
def test_a_mac_without_sysctl_is_unknown(failure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become(Machine(MACOS, "x86_64", "", 4, 8.0), tmp_path, monkeypatch)
    monkeypatch.setattr(subprocess, "run", failure)
    assert_unknown(detect(root=tmp_path, probe=False), "x86_64", "laptop-cpu")


@pytest.mark.parametrize("windll", [None, SimpleNamespace()])
def test_windows_without_the_call_is_unknown(windll: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become(Machine(WINDOWS, "AMD64", {40}, 4, 7.7), tmp_path, monkeypatch)
    monkeypatch.setattr(ctypes, "windll", windll, raising=False)
    monkeypatch.setitem(sys.modules, "winreg", None)  # importing it fails
    assert_unknown(detect(root=tmp_path, probe=False), "AMD64", "laptop-cpu")


def test_windows_that_does_not_know_avx_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become(Machine(WINDOWS, "AMD64", set(), 4, 7.7), tmp_path, monkeypatch)
    assert_unknown(detect(root=tmp_path, probe=False), "AMD64", "laptop-cpu")


def test_linux_without_proc_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become(Machine(LINUX, "aarch64", "", 4, 7.7), tmp_path, monkeypatch)
    (tmp_path / "proc/cpuinfo").unlink()
    assert_unknown(detect(root=tmp_path, probe=False), "aarch64", "arm-cpu")


def assert_unknown(found: Hardware, cpu: str, expected: str) -> None:
    """No flags, no traceback, and the profile of the family and the memory, with the doubt said."""
    assert (found.isa, found.isa_known) == ((), False)
    assert found.cpu in (cpu, "unknown")
    assert found.details["isa"] == "unknown"
    ranking = fit(found, [load_profile(entry.name) for entry in list_profiles()])
    assert ranking[0].profile.name == expected
    assert any("which this system does not tell of its CPU" in reason for reason in ranking[0].reasons)
    other = "arm-cpu" if expected == "laptop-cpu" else "laptop-cpu"
    (refused,) = (entry for entry in ranking if entry.profile.name == other)
    assert not refused.fits
    assert any(f"which no {found.machine} CPU has" in reason for reason in refused.reasons)


def test_the_command_says_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    become(Machine(MACOS, "x86_64", "", 4, 8.0), tmp_path, monkeypatch)
    monkeypatch.setattr("edgedistill.system.hardware.memory_bandwidth", lambda *_: 20.0)
    assert main(["profiles", "detect"]) == 0
    text = capsys.readouterr().out
    assert "x86_64: unknown to this system" in text
    assert "Best: laptop-cpu" in text


def test_a_profile_that_names_machines_fits_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become(MACHINES["Graviton2, 8 GB"][0], tmp_path, monkeypatch)
    found = detect(root=tmp_path, probe=False)
    (entry,) = fit(found, [load_profile("raspberry-pi-5")])
    assert not entry.fits
    assert "made for Raspberry Pi, which this machine is not" in entry.reasons
