"""Copies text from the terminal UI with a clipboard program, or tells whether the terminal itself may copy (OSC 52)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_TOOLS = (
    ("WAYLAND_DISPLAY", ("wl-copy",)),
    ("DISPLAY", ("xclip", "-selection", "clipboard")),
    ("DISPLAY", ("xsel", "--clipboard", "--input")),
    ("", ("pbcopy",)),
)
_FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})[^\n]*\n(?P<code>.*?)^(?P=fence)[ \t]*$", re.DOTALL | re.MULTILINE)
_NO_OSC52 = ("linux", "dumb", "vt100", "vt220")


def copy_with_tool(text: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Copy ``text`` with a clipboard program of the desktop; False if there is none or it fails."""
    for variable, command in _TOOLS:
        if (variable and not environment.get(variable)) or not shutil.which(command[0]):
            continue
        try:
            subprocess.run(command, input=text.encode("utf-8", "replace"), check=True, timeout=2, capture_output=True)
        except (OSError, subprocess.SubprocessError):
            continue
        return True
    return False


def terminal_can_copy(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the terminal may know OSC 52; consoles do not."""
    return environment.get("TERM", "dumb") not in _NO_OSC52


def code_blocks(markdown: str) -> list[str]:
    """The contents of fenced code blocks, in order."""
    return [found["code"].rstrip("\n") for found in _FENCE.finditer(markdown)]
