"""Code blocks of documentation pages: found with their markers, run as a reader would run them.

Above a block may stand, as HTML comments,

    <!-- not run: REASON -->            the block cannot run here
    <!-- slow: REASON -->               it takes minutes and runs under the marker ``slow`` only
    <!-- may exit 1, 3: REASON -->      exit codes beside 0 that are no mistake of the page
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cli_support import environment, here

if TYPE_CHECKING:
    from pathlib import Path

RUNNABLE = ("bash", "python")
_MARKER = re.compile(r"<!-- (not run|slow|may exit [\d, ]+): (.+?) -->")
_SHELL = re.compile(r"[|<>&;`*]|\$\(")


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block.

    Attributes:
        language: Of the fence. ``text``: what it holds. ``line``: number of the fence in the page.
        reason: Why it is not run; None where it is.
        slow: Whether it is marked as slow.
        codes: Exit codes that are no mistake.
    """

    language: str
    text: str
    line: int
    reason: str | None = None
    slow: bool = False
    codes: tuple[int, ...] = (0,)


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page, in order."""
    found: list[Block] = []
    markers: dict[str, str] = {}
    lines = page.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        if marker := _MARKER.fullmatch(line.strip()):
            markers[marker[1]] = marker[2]
        elif line.startswith("```"):
            end = next(i for i in range(number + 1, len(lines)) if lines[i] == "```")
            codes = next((m.removeprefix("may exit ") for m in markers if m.startswith("may exit")), "")
            found.append(
                Block(
                    line[3:].strip(),
                    "\n".join(lines[number + 1 : end]),
                    number + 1,
                    markers.get("not run"),
                    "slow" in markers,
                    (0, *(int(code) for code in codes.replace(",", " ").split())),
                )
            )
            markers, number = {}, end
        elif line.strip():
            markers = {}
        number += 1
    return found


def commands(text: str) -> list[str]:
    """The commands of a shell block: lines joined at backslashes and kept together in here-documents."""
    found: list[str] = []
    end: str | None = None
    for line in text.splitlines():
        if end is not None:
            found[-1] += f"\n{line}"
            end = None if line == end else end
        elif found and found[-1].endswith("\\"):
            found[-1] = found[-1][:-1] + line
        elif line.strip() and not line.lstrip().startswith("#"):
            found.append(line)
            opened = re.search(r"<<\s*'?(\w+)'?", line)
            end = opened[1] if opened else None
    return found


@dataclass(slots=True)
class Reader:
    """Somebody who follows a page in ``directory``, with a home of their own.

    Commands of edgedistill run in this process, which is what makes the pages quick to check; anything that takes a
    shell gets one, where ``edgedistill`` is on the path.
    """

    directory: Path
    home: Path
    names: dict[str, object]

    def follow(self, block: Block) -> None:
        """Run a block; raises AssertionError with the command's output where it fails."""
        if block.language == "python":
            exec(compile(block.text, f"line {block.line}", "exec"), self.names)
            return
        for command in commands(block.text):
            code, output = self._run(command)
            assert code in block.codes, f"{command}\nended with {code}:\n{output}"

    def _run(self, command: str) -> tuple[int, str]:
        words = shlex.split(command, comments=True) if not _SHELL.search(_unquoted(command)) else []
        if words[:2] == ["edgedistill", "export"] and "-o" in words:
            return self._export(words[1:])
        if words[:1] == ["edgedistill"]:
            done = here(*words[1:], home=self.home)
            return done.code, done.out + done.err
        tools = self.home / "bin"
        tools.mkdir(exist_ok=True)
        tool = tools / "edgedistill"
        tool.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m edgedistill "$@"\n')
        tool.chmod(0o755)
        variables = environment(self.home, PYTHONPATH=":".join(path for path in sys.path if path))
        variables["PATH"] = f"{tools}:{variables['PATH']}"
        ran = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", command],
            cwd=self.directory, env=variables, capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        return ran.returncode, ran.stdout + ran.stderr

    def _export(self, words: list[str]) -> tuple[int, str]:
        """Export, or copy what the same command made for another page."""
        at = words.index("-o")
        out = self.directory / words[at + 1]
        kept = self.home / "exports" / re.sub(r"[^\w-]+", "_", " ".join(words[:at] + words[at + 2 :]))
        if kept.exists() and not out.exists():
            shutil.copytree(kept, out)
            return 0, ""
        done = here(*words, home=self.home)
        if done.code == 0 and not kept.exists():
            shutil.copytree(out, kept)
        return done.code, done.out + done.err


def _unquoted(command: str) -> str:
    """The command without what stands in quotes or after a comment sign."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\s#.*", "", command)
