"""Takes away what Windows lacks, in every Python whose PYTHONPATH begins with this directory.

The modules cannot be imported; the calls, flags and signals are gone. The rest of a POSIX system is still there, so
this shows that nothing relies on these, not that Windows runs it. SIGKILL stays, for ``Popen.kill`` sends it.
"""

from __future__ import annotations

# Python's own modules take what they need of the system that they were built for.
import asyncio  # noqa: F401
import ctypes  # noqa: F401
import importlib.abc
import multiprocessing.pool  # noqa: F401
import os
import pathlib  # noqa: F401
import shutil
import signal
import subprocess  # noqa: F401
import sys
import tempfile  # noqa: F401
from typing import Any

import platformdirs  # noqa: F401
import psutil  # noqa: F401

MODULES = ("fcntl", "resource", "termios", "tty", "pty", "pwd", "grp", "readline")
CALLS = (
    "pread", "pwrite", "preadv", "pwritev", "posix_fallocate", "posix_fadvise", "sched_getaffinity",
    "sched_setaffinity", "getuid", "geteuid", "fchmod", "mkfifo", "killpg", "setsid",
    "O_NOFOLLOW", "O_DIRECTORY", "O_CLOEXEC", "O_NONBLOCK",
)  # fmt: skip
SIGNALS = ("SIGHUP", "SIGALRM", "SIGURG", "SIGIO", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTSTP", "SIGCONT", "alarm",
           "setitimer", "pthread_kill")  # fmt: skip


class _Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in MODULES:
            raise ImportError(f"{name} is not there on this system")


for name in MODULES:
    sys.modules.pop(name, None)
sys.meta_path.insert(0, _Missing())
for module, names in ((os, CALLS), (signal, SIGNALS)):
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
os.supports_dir_fd.clear()
shutil._use_fd_functions = False  # type: ignore[attr-defined]
