"""Text from files and models, made safe for where it is shown or written: terminals, pages, file names.

A terminal obeys control characters: an escape sequence in a model's answer or a manifest could write to the clipboard
(OSC 52), set the title, or overwrite what was printed. Bidirectional overrides reorder what is read (Trojan Source,
CVE-2021-42574). Tables of numbers are all that is written as CSV: no cell of them begins like a formula.
"""

from __future__ import annotations

import html
import json
import re

_CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_ORDER = "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_INVISIBLE = "\u200b\u2060\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
UNSAFE = re.compile(f"[{_CONTROL}{_ORDER}{_INVISIBLE}\ud800-\udfff]")
_UNSAFE_IN_LINE = re.compile(f"[\t\n{_CONTROL}{_ORDER}{_INVISIBLE}\ud800-\udfff]")
_RESERVED = "con|prn|aux|nul|conin\\$|conout\\$|com[0-9¹²³]|lpt[0-9¹²³]"
_NOT_IN_NAMES = '\x00-\x1f\x7f-\x9f<>:"/\\\\|?*\ud800-\udfff'
FILE_NAME = rf"(?i:(?!(?:{_RESERVED})(?:\.|$))[^{_NOT_IN_NAMES}]*[^ .{_NOT_IN_NAMES}])"
"""Pattern of a file's own name on Linux, macOS and Windows (Microsoft, Naming Files, Paths, and Namespaces)."""


def visible(text: str, *, line: bool = False) -> str:
    """``text`` with control characters, bidirectional overrides and lone surrogates spelled out (as ``\\x1b``).

    Newline and tab stay unless a single ``line`` is wanted. Nothing else changes.
    """
    return (_UNSAFE_IN_LINE if line else UNSAFE).sub(_spelled, text)


def visible_json(text: str) -> str:
    """``text``, a JSON document, with the same characters as escapes of JSON: it means what it meant."""
    return UNSAFE.sub(lambda match: json.dumps(match[0])[1:-1].replace("\x7f", "\\u007f"), text)


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(match[0], f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escape(text: str) -> str:
    """``text`` for HTML and SVG, in elements and in quoted attributes."""
    return html.escape(visible(text))


def file_name(text: str, *, default: str = "unnamed", most: int = 80) -> str:
    """``text`` as a file's own name on every system: other characters become ``-``, reserved names get a ``_``."""
    name = re.sub(r"[^\w.+-]+", "-", text).strip(" .-")[:most].rstrip(" .") or default
    return name if re.fullmatch(FILE_NAME, name) else f"_{name}"
