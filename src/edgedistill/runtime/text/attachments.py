"""Files named in a question: ``@notes.txt`` sends what is in notes.txt along, in both chats.

A reference stands at the beginning of a word; ``@"my notes.txt"`` has spaces, ``@@name`` is the text ``@name``. A word
that looks like no file (``@bob``) stays as it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edgedistill.errors import UsageError
from edgedistill.units import format_bytes

LARGEST = 1 << 20
"""Bytes of a file: more than any context of the models that run here holds."""

_REFERENCE = re.compile(r'(?<!\S)@(?:(@)(?=\S)|"([^"\n]+)"|([^\s"@]\S*))')
_AROUND = ".,;:!?)]}'"
"""What may follow a file's name in a sentence."""


@dataclass(frozen=True, slots=True)
class Attached:
    """A question with its files: ``text`` as the model gets it, and the files' names and contents in their order."""

    text: str
    files: tuple[tuple[str, str], ...] = ()


def attach(question: str, base: Path | None = None) -> Attached:
    """Read the files that ``question`` refers to and put their contents behind it, each in a block of its own.

    Args:
        question: What was typed.
        base: Directory of relative names; default: the current one.

    Raises:
        UsageError: A file that is not there, a directory, too large, or not UTF-8 text.
    """
    found: dict[str, str] = {}

    def replaced(match: re.Match[str]) -> str:
        escaped, quoted, word = match.groups()
        if escaped:
            return "@"
        name, rest = (quoted, "") if quoted else _split(word, base)
        if not name:
            return match[0]
        found.setdefault(name, _read(name, base))
        return f"{name}{rest}"

    text = _REFERENCE.sub(replaced, question)
    return Attached("\n\n".join([text, *(_block(*file) for file in found.items())]), tuple(found.items()))


def _split(word: str, base: Path | None) -> tuple[str, str]:
    """The file's name and the punctuation behind it; no name where ``word`` looks like none and is none."""
    stripped = word.rstrip(_AROUND)
    for name in (word, stripped):
        if name and _path(name, base).is_file():
            return name, word[len(name) :]
    named = "/" in word or bool(Path(stripped).suffix)
    return (stripped, word[len(stripped) :]) if named else ("", word)


def _path(name: str, base: Path | None) -> Path:
    return (base or Path.cwd()) / Path(name).expanduser()


def _read(name: str, base: Path | None) -> str:
    path = _path(name, base)
    as_text = f"Write @@{name} to send the words themselves."
    try:
        if not path.is_file():
            what = "is a directory; expected a text file" if path.is_dir() else "does not exist"
            raise UsageError(f"{name} {what}.", hint=as_text)
        if (size := path.stat().st_size) > LARGEST:
            raise UsageError(
                f"{name} has {format_bytes(size)}; expected at most {format_bytes(LARGEST)}.", hint=as_text
            )
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not UTF-8 text.", hint="Attach its text instead.") from None
    except OSError as error:
        raise UsageError(f"{name} cannot be read ({error.strerror or error}).", hint=as_text) from error
    if "\0" in content:
        raise UsageError(f"{name} is not text.", hint="Attach its text instead.")
    return content


def _block(name: str, content: str) -> str:
    """Fenced by more backticks than there are in a row within."""
    longest = max((len(run) for run in re.findall(r"`{3,}", content)), default=2)
    fence = "`" * (longest + 1)
    return f"{Path(name).name}:\n{fence}\n{content.rstrip()}\n{fence}"
