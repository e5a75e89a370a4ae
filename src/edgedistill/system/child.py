"""One function in a process of its own; its progress and its result come back as lines of JSON.

Such a process gives its memory back when it ends, keeps a crash of native code from its caller, and can be ended at
any time. ``run_in_child`` returns what the function returns, ``iterate_in_child`` what it yields.

The protocol: the parent writes one line, the request, and holds the pipe open for as long as the child is to live. When
it closes, whatever ended the parent, the child interrupts its work and ends, on every platform. The child answers with
``begin``, ``advance`` and ``end`` (progress), ``value`` (of a generator), and last ``result`` or ``error``. What the
function or a library prints goes to a temporary file; its last line is the reason given for a process that crashed.
"""

from __future__ import annotations

import _thread
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from importlib import import_module
from typing import IO, TYPE_CHECKING, Any, TypeVar

from edgedistill import errors
from edgedistill.errors import ChildError, EdgedistillError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from edgedistill.progress import Progress, Unit

T = TypeVar("T")

SUPERVISOR = "EDGEDISTILL_SUPERVISOR"
"""Variable of the environment by which ``run_limited`` tells a process who supervises it."""
_ABSURD = 1 << 40
_POLL_S = 0.1
_GRACE_S = 5.0
_ADVANCE_S = 0.05
"""At most one line of ``advance`` in this time."""


def run_in_child(
    function: Callable[..., T],
    *args: Any,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    **kwargs: Any,
) -> T:
    """Call a function of a module in a process of its own and return its result.

    Args:
        function: Found again by module and name; it gets ``progress=`` if this call has one.
        args: Its arguments, as JSON carries them (a tuple arrives as a list); the result likewise.
        progress: Receives what the function reports. An exception raised by it ends the process.
        cancel: Ends the process when it is set, whatever it does.
        time_limit: Seconds from the start of the process, with its imports, after which it is ended.
        memory_limit: Bytes that the process may take beyond those it has once the function's module is loaded. A limit
            of the operating system on Linux; elsewhere the resident memory is looked at ten times a second.
        kwargs: Its keyword arguments.

    Raises:
        EdgedistillError: What the function raised, with the class, message and hint it had.
        ChildError: Any other exception of the function, a crash, an exceeded limit, or ``cancel``.
    """
    talk = _talk(function, args, kwargs, progress, cancel, time_limit, memory_limit)
    while True:
        try:
            next(talk)
        except StopIteration as stop:
            result: T = stop.value
            return result


def run_limited(command: list[str], *, time_limit: float | None, memory_limit: int | None) -> int:
    """Run a command line with the streams of this process; its exit code. Ctrl-C reaches it as it reaches this one.

    Args:
        command: Program and arguments.
        time_limit: Seconds after which it is ended.
        memory_limit: Bytes of resident memory; looked at ten times a second.

    Raises:
        ChildError: It exceeded a limit.
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), SUPERVISOR: str(os.getpid())}
    process = subprocess.Popen(command, env=environment)
    watch = _Watch(process, None, time_limit, memory_limit)
    watch.base = 0
    try:
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                code = process.wait()
                break
    finally:
        process.kill()
    if watch.why is not None:
        raise ChildError(watch.why[1], kind=watch.why[0])
    return code


def end_with_supervisor() -> None:
    """In a process of ``run_limited``: end when the one that supervises is gone; refuse absurd amounts of memory."""
    supervisor = int(os.environ.pop(SUPERVISOR))
    _limit_memory(_ABSURD)

    def watch() -> None:
        import psutil

        while os.getppid() == supervisor and psutil.pid_exists(supervisor):
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def iterate_in_child(
    function: Callable[..., Iterator[T]],
    *args: Any,
    progress: Progress | None = None,
    cancel: threading.Event | None = None,
    time_limit: float | None = None,
    memory_limit: int | None = None,
    **kwargs: Any,
) -> Iterator[T]:
    """As ``run_in_child`` for a function that yields; the process ends with the iteration."""
    return _talk(function, args, kwargs, progress, cancel, time_limit, memory_limit)


def _talk(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    progress: Progress | None,
    cancel: threading.Event | None,
    time_limit: float | None,
    memory_limit: int | None,
) -> Generator[Any, None, Any]:
    name = f"{function.__module__}:{function.__qualname__}"
    if function.__module__ == "__main__" or "<" in function.__qualname__:
        raise ValueError(f"{name} cannot be found by another process: expected a function of a module")
    request = {"args": args, "kwargs": kwargs, "progress": progress is not None, "memory": memory_limit}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as noise:
        process = _start(name, noise)
        assert process.stdin is not None
        assert process.stdout is not None
        watch = _Watch(process, cancel, time_limit, memory_limit)
        try:
            with contextlib.suppress(BrokenPipeError, OSError):  # it has ended already: its exit code says why
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            for line in process.stdout:
                told = json.loads(line)
                if "begin" in told:
                    assert progress is not None
                    progress.begin(*told["begin"])
                elif "advance" in told:
                    assert progress is not None
                    progress.advance(told["advance"])
                elif "end" in told:
                    assert progress is not None
                    progress.end()
                elif "loaded" in told:
                    watch.base = told["loaded"]
                elif "value" in told:
                    yield told["value"]
                elif "error" in told:
                    raise _rebuilt(told)
                else:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(_GRACE_S)
                    return told["result"]
            process.wait()
            raise watch.reason(noise)
        finally:
            process.kill()
            process.wait()
            with contextlib.suppress(OSError):  # a request that it never read
                process.stdin.close()
            process.stdout.close()


def _start(name: str, noise: IO[str]) -> subprocess.Popen[str]:
    """The process, away from the terminal's Ctrl-C: that reaches the parent, which then ends it."""
    # -P: what lies in the working directory must not shadow modules; PYTHONPATH: the imports of this process.
    command = [sys.executable, "-P", "-m", "edgedistill.system.child", name]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONUTF8": "1"}
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=noise,
        text=True,
        encoding="utf-8",
        env=environment,
        start_new_session=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )


class _Watch:
    """Ends a process that is cancelled or exceeds a limit; remembers why."""

    def __init__(
        self,
        process: subprocess.Popen[str] | subprocess.Popen[bytes],
        cancel: threading.Event | None,
        time_limit: float | None,
        memory_limit: int | None,
    ) -> None:
        self.base: int | None = None
        self._process, self._cancel, self._memory, self._time = process, cancel, memory_limit, time_limit
        self._deadline = None if time_limit is None else time.monotonic() + time_limit
        self.why: tuple[str, str] | None = None
        if cancel is not None or time_limit is not None or memory_limit is not None:
            threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while self._process.poll() is None:
            self.why = self._exceeded()
            if self.why is not None:
                self._process.kill()
                return
            if self._cancel is not None:
                self._cancel.wait(_POLL_S)
            else:
                time.sleep(_POLL_S)

    def _exceeded(self) -> tuple[str, str] | None:
        if self._cancel is not None and self._cancel.is_set():
            return "cancelled", "it was cancelled"
        if self._deadline is not None and time.monotonic() > self._deadline:
            return "time", f"it took longer than {self._time:g} s"
        if self._memory is not None and self.base is not None:
            import psutil

            with contextlib.suppress(psutil.Error):
                if psutil.Process(self._process.pid).memory_info().rss > self.base + self._memory:
                    return "memory", f"it took more than {self._memory} bytes of memory"
        return None

    def reason(self, noise: IO[str]) -> ChildError:
        """The error of a process that ended without a result."""
        if self.why is not None:
            return ChildError(self.why[1], kind=self.why[0])
        code = self._process.returncode
        noise.seek(0)
        last = noise.read().strip().splitlines()[-1:]
        return ChildError(": ".join([f"exit code {code}", *last]))


def _rebuilt(told: dict[str, Any]) -> EdgedistillError:
    """The exception of the function."""
    kind = getattr(errors, told["type"], None)
    if kind is ChildError or not (isinstance(kind, type) and issubclass(kind, EdgedistillError)):
        return ChildError(told["error"], kind="memory" if told["type"] == "MemoryError" else "exception")
    return kind(told["error"], hint=told["hint"])


# ---- the child ------------------------------------------------------------------------------------------------------


class _Wire:
    """Lines to the parent, and a ``Progress`` that writes them."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream, self._advanced, self._said = stream, 0, 0.0

    def say(self, **told: Any) -> None:
        """One line."""
        self._stream.write(json.dumps(told) + "\n")
        self._stream.flush()

    def begin(self, stage: str, total: int, unit: Unit) -> None:
        """See ``Progress``."""
        self._pass_on()
        self.say(begin=[stage, total, unit])

    def advance(self, amount: int) -> None:
        """See ``Progress``."""
        self._advanced += amount
        if time.monotonic() - self._said >= _ADVANCE_S:
            self._pass_on()

    def end(self) -> None:
        """See ``Progress``."""
        self._pass_on()
        self.say(end=True)

    def _pass_on(self) -> None:
        if self._advanced:
            self.say(advance=self._advanced)
            self._advanced, self._said = 0, time.monotonic()

    def close(self) -> None:
        """Say what was held back."""
        self._pass_on()


def _end_with_parent(lifeline: int, finished: threading.Event) -> None:
    while os.read(lifeline, 1):
        continue
    if not finished.is_set():
        # As Ctrl-C would, so that files that are half written are removed.
        if hasattr(signal, "pthread_kill"):
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        else:
            _thread.interrupt_main()
        time.sleep(_GRACE_S)
        os._exit(1)


def _limit_memory(most: int) -> None:
    if sys.platform == "win32":
        return
    with contextlib.suppress(ImportError, ValueError, OSError):  # macOS refuses it
        import resource

        import psutil

        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + most,) * 2)


def _call(name: str, request: dict[str, Any], wire: _Wire) -> Any:
    module, _, path = name.partition(":")
    function: Any = import_module(module)
    for part in path.split("."):
        function = getattr(function, part)
    if request["memory"] is not None:
        import psutil

        wire.say(loaded=psutil.Process().memory_info().rss)
        _limit_memory(request["memory"])
    options = {"progress": wire} if request["progress"] else {}
    result = function(*request["args"], **request["kwargs"], **options)
    if hasattr(result, "__next__"):
        for value in result:
            wire.say(value=value)
        result = None
    return result


def _main() -> int:
    # Replies go to a copy of stdout, for only this module writes there; so does the lifeline, which no process that
    # the function starts may inherit.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as stream:
        os.dup2(2, 1)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent that ignores it would pass that on
        request = json.loads(sys.stdin.buffer.readline())
        lifeline, finished = os.dup(0), threading.Event()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        threading.Thread(target=_end_with_parent, args=(lifeline, finished), daemon=True).start()
        wire = _Wire(stream)
        try:
            result = _call(sys.argv[1], request, wire)
            finished.set()
            wire.close()
            wire.say(result=result)
        except KeyboardInterrupt:
            return errors.EXIT_INTERRUPTED
        except Exception as error:
            finished.set()
            kind, hint = type(error).__name__, getattr(error, "hint", None)
            message = error.message if isinstance(error, EdgedistillError) else f"{kind}: {error}".rstrip(": ")
            wire.say(error=message, hint=hint, type=kind)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(_main())
