"""bench/avx2_only: a library whose CPUID instructions were trapped is told of no AVX-512."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
LIBRARY = """
#include <cpuid.h>
unsigned words(int index) {
  unsigned found[4] = {0};
  __cpuid_count(7, 0, found[0], found[1], found[2], found[3]);
  return found[index];
}
"""
ASK = "import ctypes, sys; words = ctypes.CDLL(sys.argv[1]).words; print(*(words(i) & 0xFFFFFFFF for i in range(4)))"
AVX512 = 1 << 16 | 1 << 17 | 1 << 30 | 1 << 31


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or not shutil.which("gcc") or not shutil.which("objdump"),
    reason="traps are for Linux on x86-64 and need gcc and objdump",
)
def test_trapped_libraries_see_no_avx512(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (tmp_path / "ask.c").write_text(LIBRARY)
    compile_ = ["gcc", "-O2", "-shared", "-fPIC", "-o"]
    subprocess.run([*compile_, str(package / "ask.so"), str(tmp_path / "ask.c")], check=True)
    subprocess.run([*compile_, str(tmp_path / "avx2_only.so"), str(BENCH / "avx2_only.c")], check=True)
    masked = tmp_path / "masked"
    command = [sys.executable, str(BENCH / "avx2_only.py"), str(package), str(masked)]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert told.startswith("1 CPUID instructions")

    def words(library: Path, variables: dict[str, str]) -> list[int]:
        command = [sys.executable, "-S", "-c", ASK, str(library)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | variables)
        return [int(word) for word in done.stdout.split()]

    plain = words(package / "ask.so", {})
    hidden = words(masked / "ask.so", {"AVX2_ONLY_TRAPS": "1", "LD_PRELOAD": str(tmp_path / "avx2_only.so")})
    assert hidden[1] & AVX512 == 0
    assert hidden[1] == plain[1] & hidden[1]
    assert hidden[1] & (1 << 5) == plain[1] & (1 << 5), "AVX2 stays what it is"
    assert hidden[0] == plain[0]
