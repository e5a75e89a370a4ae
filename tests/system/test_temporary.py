"""Scratch directories go with their process, however it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgedistill.system.temporary import scratch

if TYPE_CHECKING:
    from pathlib import Path

HOLD = """
import sys, time
from pathlib import Path
from edgedistill.system.temporary import scratch
with scratch(Path(sys.argv[1]), "work-") as path:
    (path / "large.bin").write_bytes(b"x")
    print(path, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_process_left_goes_and_what_is_in_use_stays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        held = tmp_path / process.stdout.readline().strip()
        with scratch(tmp_path, "work-") as mine:
            assert held != mine
            assert (held / "large.bin").is_file()
        process.send_signal(signal.SIGKILL)
    assert held.is_dir()
    (tmp_path / "work-of-somebody").mkdir()
    with pytest.raises(KeyboardInterrupt), scratch(tmp_path, "work-") as mine:
        assert not held.exists()
        raise KeyboardInterrupt
    assert [entry.name for entry in tmp_path.iterdir()] == ["work-of-somebody"]
