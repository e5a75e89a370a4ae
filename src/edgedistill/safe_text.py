"""Text from files and models, made safe for where it is shown or written: terminals, tables, file names.

A terminal obeys control characters: an escape sequence in a model's answer or a manifest could write to the clipboard
(OSC 52), set the title, or overwrite what was printed. Bidirectional overrides reorder what is read (Trojan Source,
CVE-2021-42574). A spreadsheet computes a cell that begins like a formula (OWASP, CSV injection).
"""

from __future__ import annotations

import re

_CONTROL = "\x00-\x08\x0b-\x1f\x7f-\x9f"
_ORDER = "\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
_INVISIBLE = "\u200b\u2060\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"
_UNSAFE = re.compile(f"[{_CONTROL}{_ORDER}{_INVISIBLE}\ud800-\udfff]")
_UNSAFE_IN_LINE = re.compile(f"[\t\n{_CONTROL}{_ORDER}{_INVISIBLE}\ud800-\udfff]")
_RESERVED = "con|prn|aux|nul|conin\\$|conout\\$|com[0-9¹²³]|lpt[0-9¹²³]"
_NOT_IN_NAMES = '\x00-\x1f\x7f-\x9f<>:"/\\\\|?*\ud800-\udfff'
FILE_NAME = rf"(?i:(?!(?:{_RESERVED})(?:\.|$))[^{_NOT_IN_NAMES}]*[^ .{_NOT_IN_NAMES}])"
"""Pattern of a file's own name on Linux, macOS and Windows (Microsoft, Naming Files, Paths, and Namespaces)."""


def visible(text: str, *, line: bool = False) -> str:
    """``text`` with control characters, bidirectional overrides and lone surrogates spelled out (as ``\\x1b``).

    Newline and tab stay unless a single ``line`` is wanted. Nothing else changes.
    """
    return (_UNSAFE_IN_LINE if line else _UNSAFE).sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(match[0], f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def csv_cell(text: str) -> str:
    """``text`` as a cell that a spreadsheet shows rather than computes."""
    safe = visible(text)
    return f"'{safe}" if safe.lstrip()[:1] in ("=", "+", "-", "@") and not _is_number(safe) else safe


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", text) is not None


def file_name(text: str, *, default: str = "unnamed", most: int = 80) -> str:
    """``text`` as a file's own name on every system: other characters become ``-``, reserved names get a ``_``."""
    name = re.sub(r"[^\w.+-]+", "-", text).strip(" .-")[:most].rstrip(" .") or default
    return name if re.fullmatch(FILE_NAME, name) else f"_{name}"
