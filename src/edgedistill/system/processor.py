"""The processor's name and instruction sets, from wherever each system tells them; nothing here raises."""

from __future__ import annotations

import ctypes
import importlib
import platform
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_X86 = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")
_ARM = ("neon", "dotprod", "i8mm", "sve")
# What each source calls them. Windows: numbers of winnt.h for IsProcessorFeaturePresent, which knows neither VNNI nor
# AMX.
_CPUINFO = {**{name: name for name in _X86}, "asimd": "neon", "asimddp": "dotprod", "i8mm": "i8mm", "sve": "sve"}
_WINDOWS_X86 = {40: "avx2", 41: "avx512f"}
_WINDOWS_ARM = {19: "neon", 43: "dotprod", 66: "i8mm", 46: "sve"}
_SYSCTL = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.avx512vnni": "avx512_vnni",
    "hw.optional.neon": "neon",
    "hw.optional.AdvSIMD": "neon",
    "hw.optional.arm.AdvSIMD": "neon",
    "hw.optional.arm.FEAT_DotProd": "dotprod",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
}


@dataclass(frozen=True, slots=True)
class Processor:
    """``name`` for people; ``isa``: flags among ``profile.ISA_FLAGS``, None where the system does not tell."""

    name: str
    isa: tuple[str, ...] | None


def read_processor(root: Path, system: str, machine: str) -> Processor:
    """Ask this machine.

    Args:
        root: Where ``proc`` and ``sys`` are, on Linux.
        system: ``platform.system()``.
        machine: ``platform.machine()`` in lower case.
    """
    if system == "Darwin":
        values = _sysctl()
        name, isa = values.get("machdep.cpu.brand_string", ""), isa_of_sysctl(values, machine)
    elif system == "Windows":
        name, isa = _windows_name(), _windows_isa(machine)
    else:
        cpu_info = _text(root / "proc/cpuinfo")
        name, isa = _linux_name(cpu_info, root), isa_of_cpuinfo(cpu_info)
    return Processor(name.strip() or platform.processor() or platform.machine() or "unknown", isa)


def family(machine: str) -> tuple[str, ...]:
    """The instruction sets that a processor of this family (``platform.machine()`` in lower case) may have."""
    if machine in ("arm64", "aarch64"):
        return _ARM
    return _X86 if machine in ("x86_64", "amd64") else ()


def isa_of_cpuinfo(cpu_info: str) -> tuple[str, ...] | None:
    """Flags in the text of /proc/cpuinfo (``flags`` on x86, ``Features`` on ARM)."""
    words: set[str] = set()
    for line in cpu_info.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            words.update(value.split())
    return _ordered(name for word, name in _CPUINFO.items() if word in words) if words else None


def isa_of_sysctl(values: dict[str, str], machine: str) -> tuple[str, ...] | None:
    """Flags in what macOS' ``sysctl`` prints; processors of Apple have NEON and dot products in any case."""
    found = {name for key, name in _SYSCTL.items() if values.get(key) == "1"}
    if machine == "arm64":
        found |= {"neon", "dotprod"}
    return _ordered(found) if values or found else None


def _ordered(found: Iterable[str]) -> tuple[str, ...]:
    known = set(found)
    return tuple(name for name in (*_X86, *_ARM) if name in known)


def _sysctl() -> dict[str, str]:
    """Keys and values of macOS' processor; empty where there is no such program."""
    # With its path: cron and launchd leave /usr/sbin out of PATH.
    command = ["/usr/sbin/sysctl", "hw.optional", "machdep.cpu.brand_string"]
    try:
        # A key that one processor lacks makes the status 1 and leaves the others in the output.
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return {}
    pairs = (line.partition(":") for line in done.stdout.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs if value.strip()}


def _windows_isa(machine: str) -> tuple[str, ...] | None:
    numbers = _WINDOWS_ARM if family(machine) == _ARM else _WINDOWS_X86
    try:
        has = ctypes.windll.kernel32.IsProcessorFeaturePresent  # type: ignore[attr-defined, unused-ignore]
        found = _ordered(name for number, name in numbers.items() if has(number))
    except (AttributeError, OSError):
        return None
    return found or None  # Windows before build 19041 answers no to numbers that it does not know


def _windows_name() -> str:
    try:
        registry = importlib.import_module("winreg")
        path = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
        with registry.OpenKey(registry.HKEY_LOCAL_MACHINE, path) as key:
            return str(registry.QueryValueEx(key, "ProcessorNameString")[0])
    except (ImportError, OSError):
        return ""


def _linux_name(cpu_info: str, root: Path) -> str:
    """The board's model where there is a device tree; ``model name`` on x86; the maker and product of a cloud's ARM.

    Boards come first, since Jetsons have a ``model name`` that only says ARMv8.
    """
    board = _text(root / "proc/device-tree/model").strip("\0 \n")
    if board:
        return board
    for wanted in ("model name", "Model", "Hardware"):
        for line in cpu_info.splitlines():
            key, _, value = line.partition(":")
            if key.strip() == wanted and value.strip():
                return value.strip()
    product = root / "sys/class/dmi/id"
    return f"{_text(product / 'sys_vendor').strip()} {_text(product / 'product_name').strip()}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
