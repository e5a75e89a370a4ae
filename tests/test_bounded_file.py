"""What has no end, no size or no writer is read all the same."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from edgedistill.bounded_file import read_bounded


def test_one_byte_more_than_the_limit_says_that_a_file_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_bytes(b"12345")
    assert read_bounded(path, 5) == b"12345"
    assert read_bounded(path, 4) == b"12345"
    assert read_bounded(path, 3) == b"1234"
    with pytest.raises(OSError):
        read_bounded(tmp_path, 3)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="a device of Unix")
def test_a_device_without_end() -> None:
    assert read_bounded(Path("/dev/zero"), 100) == bytes(101)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes of Unix")
def test_a_pipe_without_a_writer_is_empty_and_one_with_a_writer_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert read_bounded(path, 10) == b""
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # so that opening it for writing does not wait
    writer = os.open(path, os.O_WRONLY)

    def write() -> None:
        for part in (b"one ", b"two"):
            os.write(writer, part)
        os.close(writer)

    thread = threading.Thread(target=write)
    thread.start()
    assert read_bounded(path, 10) == b"one two"
    thread.join()
    os.close(reader)
