"""Keeps ``run`` and ``chat --plain`` on the bundle as it was loaded while other programs change its files."""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgedistill.cli import console
from edgedistill.errors import BundleError
from edgedistill.system.file_leases import SIGNAL, MappedFiles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.bundle.bundle import Bundle


@contextmanager
def keep_files(bundle: Bundle) -> Iterator[KeptFiles]:
    """Keep the weights of ``bundle``, a loaded one, as they are meanwhile; for the main thread.

    Raises:
        BundleError: On leaving, where another program had to be let go on and the memory did not suffice for a copy.
    """
    if sys.platform == "win32" or SIGNAL is None:
        yield KeptFiles(bundle)
        return
    # The main thread may be within a long step, and Python's own handlers wait for its end; whoever wants to change a
    # file does not wait for ever. What the system calls writes to this pipe at once.
    asleep, awake = os.pipe()
    os.set_blocking(awake, False)
    handler = signal.signal(SIGNAL, lambda *_: None)
    wakeup = signal.set_wakeup_fd(awake, warn_on_full_buffer=False)
    kept = KeptFiles(bundle, lease=True)
    watcher = threading.Thread(target=kept.watch, args=(asleep,), daemon=True)
    watcher.start()
    try:
        yield kept
    except KeyboardInterrupt:
        if not kept.lost:
            raise
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(SIGNAL, handler)
        os.close(awake)
        watcher.join()
        os.close(asleep)
        kept.close()
    if kept.lost:
        raise BundleError(
            f"Another program is changing the files of {kept.name}, and there is not enough memory to keep a copy.",
            hint="Open the bundle again when the other program has finished.",
        )


class KeptFiles:
    """The files of one bundle.

    Attributes:
        name: The bundle's.
        lost: They are about to change and could not be copied: this process has to end.
    """

    def __init__(self, bundle: Bundle, *, lease: bool = False) -> None:
        self.name = bundle.path.resolve().name
        self.lost = False
        self._files = MappedFiles(bundle.mapped_files, lease=lease)

    def check(self) -> None:
        """Raises BundleError where files were changed without this process being told."""
        if (what := self._files.changed()) is not None:
            raise BundleError(
                f"The files of {self.name} were changed by another program: {what}.",
                hint="Quit, and open the bundle again.",
            )

    def watch(self, pipe: int) -> None:
        """At every signal, until ``pipe`` ends, look whether somebody waits for the files."""
        while os.read(pipe, 4096):
            if self.lost or not self._files.wanted:
                continue
            if self._files.take_over():
                console.note("")
                console.note(
                    f"Another program is changing the files of {self.name}; this run continues with what it had loaded."
                )
            else:
                self.lost = True
                os.kill(os.getpid(), signal.SIGINT)  # an answer stops and keeps its text, a prompt ends

    def close(self) -> None:
        """Let others change them."""
        self._files.close()
