"""What the terminal UI costs: idle CPU, its memory without a model, keys while generating, and decode speed.

The real program runs in a pseudo-terminal of 80x24, as a user starts it, and is driven by keys. Its decode speed is
compared, round by round, with the bare runtime in a process of its own: the same bundle, question, seed and threads.

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
    model.generate("Hello", settings=settings.replace(max_new_tokens=8))
    first = None
    count = 0
    for event in model.stream([{"role": "user", "content": question}], settings=settings):
        if event.kind in ("reasoning", "answer", "marker"):
            first = first or time.perf_counter()
            count += event.tokens
        last = time.perf_counter()
    print(json.dumps({"decode_tps": event.generation.stats.decode_tps, "wall_tps": (count - 1) / (last - first)}))
"""


class Terminal:
    """The program in a pseudo-terminal; what it draws is read and thrown away, as a terminal emulator would take it."""

    def __init__(self, arguments: list[str], data: Path) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.environ.update(EDGEDISTILL_DATA=str(data), TERM="xterm-256color", COLORTERM="truecolor")
            os.execv(sys.executable, [sys.executable, "-m", "edgedistill", *arguments])
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self._open = True
        self.drawn = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while self._open:
            ready, _, _ = select.select([self._fd], [], [], 0.2)
            try:
                self.drawn += len(os.read(self._fd, 65536)) if ready else 0
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


def idle(data: Path, seconds: float) -> tuple[float, int]:
    """CPU share and memory of the bundle manager, without a model, after it has settled."""
    terminal = Terminal(["tui"], data)
    wait_for(lambda: terminal.drawn > 2000, 60, "the first screen")
    time.sleep(3)
    before, begun = terminal.cpu_s(), time.monotonic()
    time.sleep(seconds)
    share = (terminal.cpu_s() - before) / (time.monotonic() - begun)
    memory = terminal.rss()
    terminal.close()
    return share, memory


def generating(bundle: Path, data: Path, seed: int, new: int) -> tuple[dict[str, Any], int, int]:
    """A reply in the UI, with keys typed meanwhile: its statistics, keys sent, keys that arrived."""
    before = len(replies(data))
    terminal = Terminal(["chat", str(bundle), "--seed", str(seed), "-n", str(new)], data)
    wait_for(lambda: terminal.drawn > 2000, 60, "the first screen")
    time.sleep(4)  # the model loads
    terminal.keys(QUESTION + "\r")
    typed = 0
    while len(replies(data)) == before and typed < 4000:
        terminal.keys("k", 0.05)
        typed += 1
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
    parser.add_argument("--new-tokens", type=int, default=400)
    parser.add_argument("--idle-seconds", type=float, default=20.0)
    parser.add_argument("--quick", action="store_true", help="one round, to try it")
    args = parser.parse_args()
    rounds, seconds = (1, 5.0) if args.quick else (args.rounds, args.idle_seconds)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        share, memory = idle(data, seconds)
        print(f"idle CPU            {100 * share:.2f} % of a core over {seconds:.0f} s (wanted: below 1 %)")
        print(f"memory, no model    {memory / 2**20:.1f} MiB (wanted: below 80 MB)", flush=True)
        ratios, sent, got = [], 0, 0
        for number in range(rounds):
            order = ("bare", "ui") if number % 2 else ("ui", "bare")
            rate = {}
            for which in order:
                if which == "bare":
                    rate[which] = bare(args.bundle, number, args.new_tokens)["decode_tps"]
                else:
                    stats, typed, arrived = generating(args.bundle, data, number, args.new_tokens)
                    rate[which] = stats["decode_tps"]
                    sent, got = sent + typed, got + arrived
            ratios.append(rate["ui"] / rate["bare"])
            print(f"round {number + 1}: UI {rate['ui']:.1f} tok/s, bare {rate['bare']:.1f} tok/s", flush=True)
        print(f"keys while generating  {got} of {sent} arrived (wanted: all)")
        spread = f"({min(ratios):.3f} - {max(ratios):.3f})"
        print(f"decode speed, UI / bare runtime  {statistics.median(ratios):.3f} {spread} (wanted: at least 0.95)")


if __name__ == "__main__":
    main()
