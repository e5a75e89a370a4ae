"""Copies a package and replaces every CPUID instruction in its libraries with a trap, for ``avx2_only.c``.

For x86-64 processors whose CPUID cannot be made to fault (AMD's); needs objdump. To run ONNX Runtime with AVX2 only:

    gcc -O2 -shared -fPIC -o avx2_only.so bench/avx2_only.c
    python bench/avx2_only.py .venv/lib/python3.11/site-packages/onnxruntime masked/onnxruntime
    AVX2_ONLY_TRAPS=1 PYTHONPATH=masked LD_PRELOAD=./avx2_only.so PROGRAM
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

CPUID, TRAP = b"\x0f\xa2", b"\xcc\x90"  # int3, nop


def trap(library: Path) -> int:
    """Replace the instructions in the file; returns their number."""
    sections = _objdump("-h", "-j", ".text", library)
    found = re.search(r"\.text\s+\w+\s+(\w+)\s+\w+\s+(\w+)", sections)
    if found is None:
        return 0
    address, offset = (int(number, 16) for number in found.groups())
    code = bytearray(library.read_bytes())
    lines = re.findall(r"^\s*(\w+):\s+cpuid\s*$", _objdump("-d", "-j", ".text", "--no-show-raw-insn", library), re.M)
    for line in lines:
        at = int(line, 16) - address + offset
        if code[at : at + 2] != CPUID:
            raise SystemExit(f"error: {library.name} has no CPUID at {line}; expected what objdump shows.")
        code[at : at + 2] = TRAP
    library.write_bytes(code)
    return len(lines)


def _objdump(*arguments: str | Path) -> str:
    return subprocess.run(["objdump", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def main() -> None:
    """Copy, replace, count."""
    if len(sys.argv) != 3:
        raise SystemExit("usage: avx2_only.py PACKAGE TARGET")
    source, target = map(Path, sys.argv[1:])
    shutil.copytree(source, target)
    total = sum(trap(path) for path in sorted(target.rglob("*.so*")) if not path.is_symlink())
    sys.stdout.write(f"{total} CPUID instructions trapped in {target}\n")


if __name__ == "__main__":
    main()
