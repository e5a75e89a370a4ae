"""The bundle's files change while ``chat --plain`` or ``run`` goes on with them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from cli_support import COMMAND, environment, here

from edgedistill.system.file_leases import MappedFiles

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GREEDY = ("--temperature", "0", "-n", "24")
SPOIL = {
    "truncated": "import os, sys; os.truncate(sys.argv[1], 0)",
    "overwritten": "import os, sys; n = os.path.getsize(sys.argv[1]); f = open(sys.argv[1], 'r+b'); "
    "f.write(bytes(range(256)) * (n // 256)); f.close()",
}
# The command where memory is too short for a copy.
SHORT_OF_MEMORY = """
import sys
from edgedistill.cli import main
from edgedistill.system.file_leases import MappedFiles
MappedFiles.take_over = lambda self: False
sys.exit(main(sys.argv[1:]))
"""
# The command with a hook: after some tokens the weights are truncated by another program, which waits for the copy.
TRUNCATED_MEANWHILE = """
import os, subprocess, sys
from edgedistill.cli import main
from edgedistill.runtime.generate import TokenLoop
real = TokenLoop.__iter__
def tokens(loop):
    for count, token in enumerate(real(loop)):
        if count == 5:
            subprocess.run([sys.executable, "-S", "-c", os.environ["SPOIL"], os.environ["WEIGHTS"]], check=True)
        yield token
TokenLoop.__iter__ = tokens
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def bundle(tiny_bundle_dir: Path, tmp_path: Path) -> Path:
    """One that may be spoilt, where its files can have leases."""
    copy = shutil.copytree(tiny_bundle_dir, tmp_path / "bundle")
    watched = MappedFiles([copy / "weights.bin"], lease=True)
    leased = watched.leased
    watched.close()
    if not leased:
        pytest.skip("no leases on this file system")
    return copy


@contextmanager
def chat(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A plain chat that waits for its lines, a minute at most."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        late = threading.Timer(60, process.kill)
        late.start()
        try:
            yield process
        finally:
            late.cancel()
            process.kill()


def say(process: subprocess.Popen[str], *lines: str) -> None:
    assert process.stdin is not None
    process.stdin.write("\n".join(lines) + "\n")
    process.stdin.flush()


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Read stderr until ``words`` are in a line of it."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if words in line:
            return
    pytest.fail(f"the chat ended: {seen}")


def change(weights: Path, how: str) -> None:
    """As another program does; it waits until the chat lets it go on."""
    subprocess.run([sys.executable, "-S", "-c", how, str(weights)], check=True, timeout=300)


@pytest.mark.parametrize("how", SPOIL)
def test_a_plain_chat_goes_on_with_the_weights_it_loaded(bundle: Path, tmp_path: Path, how: str) -> None:
    saved = [tmp_path / f"{number}.md" for number in (1, 2)]
    with chat(*COMMAND, "chat", "--plain", str(bundle), *GREEDY) as process:
        say(process, "hello", f"/save {saved[0]}", "/reset")
        wait_for(process, "forgotten")
        change(bundle / "weights.bin", SPOIL[how])  # while the chat waits for a line
        wait_for(process, "Another program is changing the files of bundle")
        say(process, "hello", f"/save {saved[1]}")
        _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Another" not in err
    first, second = (path.read_text().split("## ")[1:] for path in saved)
    assert len(first) == 2
    assert [part.splitlines()[2:] for part in first] == [part.splitlines()[2:] for part in second]


def test_where_the_memory_does_not_suffice_the_chat_ends_and_lets_the_other_go_on(bundle: Path) -> None:
    with chat(sys.executable, "-c", SHORT_OF_MEMORY, "chat", "--plain", str(bundle), *GREEDY) as process:
        say(process, "hello", "/reset")
        wait_for(process, "forgotten")
        change(bundle / "weights.bin", SPOIL["truncated"])
        process.wait(timeout=300)  # stdin is still open
        assert process.stderr is not None
        *_, last = process.stderr.read().splitlines()
    assert process.returncode == 2
    assert last.startswith("error: Another program is changing the files of bundle, and there is not enough memory")
    assert (bundle / "weights.bin").stat().st_size == 0


def test_an_answer_goes_on_with_the_weights_that_were_loaded(bundle: Path) -> None:
    whole = here("run", bundle, "hello", *GREEDY)
    done = subprocess.run(
        [sys.executable, "-c", TRUNCATED_MEANWHILE, "run", str(bundle), "hello", *GREEDY],
        capture_output=True, text=True, timeout=300, check=False,
        env=environment(SPOIL=SPOIL["truncated"], WEIGHTS=str(bundle / "weights.bin")),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Another program is changing the files of bundle" in done.stderr
    assert done.stdout == whole.out


def test_without_leases_changed_weights_are_noticed_before_the_next_answer(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgedistill.cli import plain_chat

    lines = iter(["hello", "hello", None])

    def read() -> str | None:
        line = next(lines)
        if line and asked:
            with (bundle / "weights.bin").open("ab") as stream:  # more of it is safe even where the pages are mapped
                stream.write(b"x")
        asked.append(line)
        return line

    asked: list[str | None] = []
    monkeypatch.setattr("edgedistill.system.file_leases._leased", lambda _: -1)
    monkeypatch.setattr(plain_chat, "_read_line", read)
    result = here("chat", "--plain", "--json", bundle, *GREEDY)
    assert result.code == 0
    assert len(result.json["turns"]) == 2
    assert "error: The files of bundle were changed by another program: weights.bin has" in result.err
