"""Measures the terminal UI: idle CPU, memory without a model, keys typed while generating, and decode speed.

The real program runs in a pseudo-terminal of 80x24 and is driven by keys. Its decode speed is compared, round by round,
with the bare runtime in a process of its own: the same bundle, question, seed, threads and number of tokens, each the
first reply of a fresh process. Speed is tokens over the time on the wall from the first token to the last, because what
a UI costs falls between the steps of the model as well as into them; the steps' own speed is printed beside it.

    make bench-tui ARGS="--rounds 7"
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import signal
import sqlite3
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from pathlib import Path
from typing import Any

QUESTION = "Tell me a long story about a fisherman, his three daughters, and the sea."

_BARE = """
import json, sys, time
from edgedistill.runtime.model import open_bundle
path, question, seed, new = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with open_bundle(path) as model:
    settings = model.default_settings.replace(seed=seed, max_new_tokens=new, ignore_eos=True)
    begun = time.perf_counter()
    for event in model.stream([{"role": "user", "content": question}], settings=settings):
        pass
    print(json.dumps(event.generation.stats.to_dict() | {"wall_s": time.perf_counter() - begun}))
"""
# What "edgedistill chat BUNDLE --seed S -n N" runs, and past the end of the reply, so that both decode as much.
_UI = """
import sys
from pathlib import Path
from edgedistill.cli import terminal_ui
overrides = {"seed": int(sys.argv[2]), "max_new_tokens": int(sys.argv[3]), "ignore_eos": True}
sys.exit(terminal_ui.run_app(bundle=Path(sys.argv[1]), overrides=overrides))
"""


# The chat without a model; "still": with a cursor that does not blink.
_IDLE = """
import sys
from edgedistill.cli import terminal_ui
from edgedistill_tui.widgets.prompt import Prompt
made = Prompt.__init__
def still(self):
    made(self)
    self.cursor_blink = False
if sys.argv[2] == "still":
    Prompt.__init__ = still
sys.exit(terminal_ui.run_app(page=sys.argv[1]))
"""
IDLE = (
    ("bundles", "blinking", (80, 24)), ("chat", "still", (80, 24)), ("chat", "blinking", (60, 20)),
    ("chat", "blinking", (80, 24)), ("chat", "blinking", (120, 40)), ("chat", "blinking", (220, 60)),
)  # fmt: skip
"""Page, cursor of the prompt, columns and lines."""


class Terminal:
    """The program in a pseudo-terminal; what it draws is read and thrown away, as a terminal emulator would take it."""

    def __init__(self, arguments: list[str], data: Path, size: tuple[int, int] = (80, 24)) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ.update(EDGEDISTILL_DATA=str(data), TERM="xterm-256color", COLORTERM="truecolor")
            os.execv(sys.executable, [sys.executable, *arguments])
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
        self._open = True
        self.drawn = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while self._open:
            ready, _, _ = select.select([self._fd], [], [], 0.2)
            try:
                # The end is enough to look for words in.
                self.drawn = (self.drawn + os.read(self._fd, 65536))[-65536:] if ready else self.drawn
            except OSError:
                return

    def keys(self, text: str, pause: float = 0.0) -> None:
        """Type, one key at a time."""
        for key in text:
            os.write(self._fd, key.encode())
            time.sleep(pause)

    def cpu_s(self) -> float:
        """Processor seconds of the process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss(self) -> int:
        """Resident bytes."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return 0

    def close(self) -> None:
        """End it as a terminal's end does, and wait."""
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)
        self._open = False
        os.close(self._fd)


def replies(data: Path) -> list[dict[str, Any]]:
    """The statistics of finished replies in the session database."""
    try:
        with sqlite3.connect(f"file:{data / 'sessions.db'}?mode=ro", uri=True, timeout=1) as connection:
            rows = connection.execute(
                "SELECT stats FROM message WHERE role = 'assistant' AND finish_reason <> 'interrupted' ORDER BY created"
            ).fetchall()
    except sqlite3.Error:
        return []
    return [json.loads(row[0]) for row in rows]


def wait_for(condition: Any, seconds: float, what: str) -> None:
    """Until ``condition()`` is true."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"error: {what} did not happen within {seconds:.0f} s")
        time.sleep(0.1)


def idle(data: Path, seconds: float, page: str, cursor: str, size: tuple[int, int]) -> tuple[float, int]:
    """CPU share and memory of a page, without a model, after it has settled."""
    terminal = Terminal(["-c", _IDLE, page, cursor], data, size)
    wait_for(lambda: len(terminal.drawn) > 2000, 60, "the first screen")
    time.sleep(3)
    before, begun = terminal.cpu_s(), time.monotonic()
    time.sleep(seconds)
    share = (terminal.cpu_s() - before) / (time.monotonic() - begun)
    memory = terminal.rss()
    terminal.close()
    return share, memory


def generating(bundle: Path, data: Path, seed: int, new: int, *, typing: bool) -> tuple[dict[str, Any], int, int]:
    """A reply in the UI, keys typed meanwhile or not: its statistics, keys sent, keys that arrived."""
    before = len(replies(data))
    terminal = Terminal(["-c", _UI, str(bundle), str(seed), str(new)], data)
    wait_for(lambda: b"ready" in terminal.drawn, 600, "the loaded model")
    time.sleep(1)  # whatever is drawn behind the word
    terminal.keys(QUESTION + "\r")
    typed = 0
    until = time.monotonic() + 900
    while len(replies(data)) == before:
        if typing:
            terminal.keys("k", 0.05)
            typed += 1
        else:
            time.sleep(0.5)  # looking costs time of a core as well
        if time.monotonic() > until:
            raise SystemExit("error: the reply did not end within 900 s")
    if not typing:
        terminal.close()
        return replies(data)[before], 0, 0
    # What was typed is sent as the next question: the database then says how many keys arrived.
    time.sleep(0.5)
    terminal.keys("\r")
    arrived = 0
    until = time.monotonic() + 10
    while time.monotonic() < until and not arrived:
        with sqlite3.connect(data / "sessions.db", timeout=2) as connection:
            row = connection.execute("SELECT content FROM message WHERE role='user' ORDER BY created DESC LIMIT 1")
            text = str(row.fetchone()[0])
        arrived = len(text) if set(text) == {"k"} else 0
        time.sleep(0.1)
    terminal.close()
    return replies(data)[before], typed, arrived


def decode_rate(stats: dict[str, Any]) -> float:
    """Tokens per second from the first token to the end of the reply."""
    return float((stats["new_tokens"] - 1) / (stats["wall_s"] - stats["ttft_s"]))


def bare(bundle: Path, seed: int, new: int) -> dict[str, Any]:
    """The same reply without a UI."""
    command = [sys.executable, "-c", _BARE, str(bundle), QUESTION, str(seed), str(new)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, nargs="?", default=Path("demo-bundle"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--new-tokens", type=int, default=1000)
    parser.add_argument("--idle-seconds", type=float, default=20.0)
    parser.add_argument("--idle", action="store_true", help="only what it takes while nothing happens")
    parser.add_argument("--quick", action="store_true", help="one round, to try it")
    args = parser.parse_args()
    rounds, seconds = (1, 5.0) if args.quick else (args.rounds, args.idle_seconds)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        for page, cursor, size in IDLE:
            turns = [idle(data, seconds, page, cursor, size) for _ in range(min(rounds, 3))]
            shares = sorted(100 * share for share, _ in turns)
            print(
                f"idle CPU  {page}, {cursor} cursor, {size[0]}x{size[1]}: {statistics.median(shares):.2f} % of a core "
                f"({shares[0]:.2f} - {shares[-1]:.2f}) over {seconds:.0f} s", flush=True,
            )  # fmt: skip
        print(f"memory, no model    {turns[-1][1] / 1e6:.1f} MB (wanted: below 80 MB)", flush=True)
        if args.idle:
            return
        ratios, rates = [], []
        for number in range(rounds):
            order = ("bare", "ui") if number % 2 else ("ui", "bare")
            stats = {}
            for which in order:
                if which == "bare":
                    stats[which] = bare(args.bundle, number, args.new_tokens)
                else:
                    stats[which], _, _ = generating(args.bundle, data, number, args.new_tokens, typing=False)
            rate = {which: decode_rate(found) for which, found in stats.items()}
            ratios.append(rate["ui"] / rate["bare"])
            rates.append(rate["ui"])
            steps = ", ".join(f"{found['decode_tps']:.1f} in {which}" for which, found in stats.items())
            tokens = f"{stats['ui']['new_tokens']} and {stats['bare']['new_tokens']} tokens"
            print(
                f"round {number + 1}: UI {rate['ui']:.1f} tok/s, bare {rate['bare']:.1f} tok/s "
                f"({tokens}; steps alone: {steps})", flush=True,
            )  # fmt: skip
        spread = f"({min(ratios):.3f} - {max(ratios):.3f})"
        print(f"decode speed, UI / bare runtime  {statistics.median(ratios):.3f} {spread} (wanted: at least 0.95)")
        typed, sent, got = generating(args.bundle, data, 0, args.new_tokens, typing=True)
        slower = decode_rate(typed) / statistics.median(rates)
        print(f"keys while generating  {got} of {sent} arrived (wanted: all); speed while they come {slower:.3f}")


if __name__ == "__main__":
    main()
