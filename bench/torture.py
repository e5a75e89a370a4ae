"""Kills commands at random moments, makes their disk fail, and checks that no data are lost or damaged: make torture.

Every operation runs in a process forked from this one, in which everything is imported already. A kill (SIGKILL) comes
at a random moment of its usual duration. A disk fault is a file that cannot grow beyond a random size (RLIMIT_FSIZE),
or the n-th call that opens a file for writing, renames or removes one, failing with ENOSPC or EIO. After each:

- the bundle or baseline under the name is the old or the new one, every hash compared, or the command had not made it
  yet; files of the user's beside it are as they were,
- a failed command ended with exit code 2 and one line, not with a traceback; a verdict may lack its stored samples,
- the same command run again succeeds, and leaves nothing behind.

Options: --seconds N (all operations together), --seed N, --operations a,b. Prints a Markdown table. Linux and macOS.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bundle.bundle import Bundle
from edgedistill.cli import main
from edgedistill.errors import EdgedistillError
from edgedistill.verify.references.baseline_file import Baseline
from edgedistill_tui.data.database import StoreError
from edgedistill_tui.data.session import Session
from edgedistill_tui.data.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MODEL = "tiny-reasoner"
FINE = (0, 1, 3)
"""Exit codes of a command that did its work: a verdict is no failure."""
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.link", "os.truncate")
_SETTLED = 600.0
"""Seconds after which a command that nobody killed counts as hanging."""


@dataclass(slots=True)
class Tally:
    """Of one operation: faults by kind, and what was wrong after some of them."""

    kills: int = 0
    faults: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Operation:
    """A command, and what has to hold whatever became of it. ``target`` is what it writes."""

    name: str
    command: tuple[str, ...]
    target: Path
    check: Callable[[Path], object]
    program: Callable[[Sequence[str]], int] = main


def operations(root: Path, wanted: Sequence[str] = ()) -> list[Operation]:
    """All that can run here, or those of the given names, with their inputs made."""
    made, reference = root / "bundle", root / "reference"
    small, store = ("--samples", "2", "--prompts", "12", "-n", "32"), ("--store", str(root / "samples"))
    out = root / "out"
    force = ("-o", str(out), "--force", "--no-verify")

    def opens(path: Path) -> object:
        return Bundle.open(path, check="full")

    calibrated = ("--calibrate", "--calibration-tokens", "512")
    reports = ("--out", str(root / "reports"))
    verify = ("verify", str(made), "--reference", str(reference), *small, *store, *reports)
    kept = root / "b.baseline"
    create = ("baseline", "create", str(made), "-o", str(kept), "--force", *small, *store)
    found = [
        Operation("export", ("export", MODEL, *force), out, opens),
        Operation("export --calibrate", ("export", MODEL, *force, *calibrated), out, opens),
        Operation("verify", verify, made, opens),
        Operation("baseline create", create, kept, Baseline.load),
    ]
    database = root / "sessions.db"
    found.append(Operation("sessions", (str(database),), database, sessions_are_whole, write_sessions))
    if find_spec("torch") is not None:
        tune = ("tune", str(made), "-o", str(root / "tuned"), "--force", "--steps", "2")
        found.append(Operation("tune", tune, root / "tuned", opens))
    chosen = [one for one in found if not wanted or one.name in wanted]
    for path, options in ((made, ()), (reference, ("--format", "fp32"))):
        if any(str(path) in one.command for one in chosen):
            run(("export", MODEL, "-o", str(path), *options, "--no-verify"), root)
    return chosen


SAVES = 40
_WORDS = "word " * 50


def write_sessions(arguments: Sequence[str]) -> int:
    """What the terminal UI writes while replies grow: a session each time, saved with every part of its reply."""
    store = Store(Path(arguments[0]))
    try:
        session = Session()
        reply = session.begin_reply(session.ask("How many?"), {})
        for _ in range(SAVES):
            reply.content += _WORDS
            reply.dirty = True
            store.save(session)
            time.sleep(0.01)
    except EdgedistillError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        store.close()
    return 0


def sessions_are_whole(path: Path) -> None:
    """Every session that the database lists opens, with a reply that was saved as a whole; raises EdgedistillError."""
    store = Store(path)
    try:
        found = [store.load(summary.id) for summary in store.sessions(limit=10_000)]
    finally:
        store.close()
    for session in found:
        parts = session.path()[-1].content
        if parts != _WORDS * (len(parts) // len(_WORDS)) or len(session.path()) > 2:
            raise StoreError(f"{path.name} has a reply that nobody saved")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
    if answer != "ok":
        raise StoreError(f"{path.name}: {answer}")


def run(
    command: Sequence[str],
    root: Path,
    *,
    prepare: Callable[[], None] | None = None,
    kill_after: float | None = None,
    program: Callable[[Sequence[str]], int] = main,
) -> tuple[int, str]:
    """The exit code of a command (minus the signal that ended it) and what it said, in a forked process."""
    log = root / "log.txt"
    child = os.fork()
    if child == 0:
        code = 70
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            for stream in (1, 2):
                os.dup2(descriptor, stream)
            os.setpgid(0, 0)
            if prepare is not None:
                prepare()
            code = program(command)
        except BaseException:
            import traceback

            with contextlib.suppress(BaseException):
                traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)
    limit = time.monotonic() + (_SETTLED if kill_after is None else kill_after)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > limit:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            break
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # processes of its own that outlive it
    return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")


def limited_files(size: int) -> Callable[[], None]:
    """No file of the process may grow beyond ``size`` bytes: what a full disk is to it."""

    def prepare() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return prepare


def failing_change(number: int, code: int, below: Path) -> Callable[[], None]:
    """The change of the disk number ``number`` below a directory, and all that follow, fail with ``code``."""

    def prepare() -> None:
        count = 0

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal count
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if not (writes or event in _CHANGES) or not str(arguments[0]).startswith(str(below)):
                return
            count += 1
            if count >= number:
                raise OSError(code, os.strerror(code), str(arguments[0]))

        sys.addaudithook(hook)

    return prepare


def verdict(operation: Operation, users: dict[Path, bytes], code: int, said: str) -> str | None:
    """What is wrong after a fault; None if nothing is."""
    for path, content in users.items():
        if not path.is_file() or path.read_bytes() != content:
            return f"{path.name} of the user's is gone or changed"
    if operation.target.exists():
        try:
            operation.check(operation.target)
        except EdgedistillError as error:
            return f"{operation.target.name}: {error}"
    if "Traceback" in said:
        return f"a traceback: {said.strip().splitlines()[-1]}"
    if code not in (*FINE, 2, -signal.SIGKILL):
        return f"exit code {code}: {said.strip()[-200:]}"
    return None


def torture(seconds: float, seed: int, wanted: Sequence[str] = (), *, root: Path | None = None) -> dict[str, Tally]:
    """Kill and starve operations in turn for ``seconds``, at least one kill and one fault each."""
    rng = random.Random(seed)
    with contextlib.ExitStack() as stack:
        root = root or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgedistill-torture-")))
        (root / "cache").mkdir()
        os.environ["XDG_CACHE_HOME"] = str(root / "cache")
        users = {root / "notes.txt": b"precious", root / ".out.old" / "notes.txt": b"precious"}
        for path, content in users.items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        tallies: dict[str, Tally] = {}
        durations: dict[str, float] = {}
        chosen = operations(root, wanted)
        for one in chosen:
            begun = time.monotonic()
            code, said = run(one.command, root, program=one.program)
            durations[one.name] = time.monotonic() - begun
            tallies[one.name] = Tally()
            if code not in FINE:
                tallies[one.name].wrong.append(f"it fails by itself: {said.strip()[-300:]}")
        deadline = time.monotonic() + seconds
        while chosen:
            for one in chosen:
                tally = tallies[one.name]
                shutil.rmtree(root / "samples", ignore_errors=True)  # a verification that only reads is soon done
                kill = tally.kills <= tally.faults
                if kill:
                    tally.kills += 1
                    after = rng.uniform(0, durations[one.name])
                    code, said = run(one.command, root, kill_after=after, program=one.program)
                else:
                    tally.faults += 1
                    at = rng.randrange(1, 40)
                    faults = (
                        limited_files(rng.randrange(1, 2_000_000)),
                        failing_change(at, rng.choice((errno.ENOSPC, errno.EIO)), root),
                    )
                    code, said = run(one.command, root, prepare=rng.choice(faults), program=one.program)
                wrong = verdict(one, users, code, said)
                if wrong is None:
                    code, said = run(one.command, root, program=one.program)
                    wrong = None if code in FINE else f"the next run fails: {said.strip()[-300:]}"
                if wrong is None and (left := [p.name for p in root.glob(".*.partial")]):
                    wrong = f"left behind: {left}"
                if wrong is not None:
                    tally.wrong.append(f"{'kill' if kill else 'disk fault'} {tally.kills + tally.faults}: {wrong}")
            if time.monotonic() > deadline and all(t.kills and t.faults for t in tallies.values()):
                return tallies
    return tallies


def table(tallies: dict[str, Tally]) -> str:
    """Markdown."""
    lines = ["| operation | kills | disk faults | survived |", "|---|---|---|---|"]
    for name, tally in tallies.items():
        total = tally.kills + tally.faults
        lines.append(f"| {name} | {tally.kills} | {tally.faults} | {max(0, total - len(tally.wrong))} of {total} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--operations", default="", help="names, separated by commas")
    args = parser.parse_args()
    found = torture(args.seconds, args.seed, [name for name in args.operations.split(",") if name])
    print(table(found))
    problems = [f"{name}: {what}" for name, tally in found.items() for what in tally.wrong]
    print("\n".join(problems), file=sys.stderr)
    sys.exit(bool(problems))
