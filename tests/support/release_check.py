"""Whether the version that is released is the one that every file names; the changelog's section as release notes.

python tests/support/release_check.py 0.2.0 [--notes FILE]
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def section(changelog: str, version: str) -> tuple[str, str] | None:
    """Date (or "unreleased") and text of a version's section of the changelog, None where there is no such section."""
    found = re.search(
        rf"^## \[{re.escape(version)}\](?: - (\S+))?\n(.*?)(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL
    )
    return None if found is None else (found[1] or "", found[2].strip())


def problems(version: str, root: Path = ROOT) -> list[str]:
    """What stands in the way of releasing ``version``, one sentence each."""
    found = []
    for name, pattern in (
        ("src/edgedistill/_version.py", r'__version__ = "(.*)"'),
        ("CITATION.cff", r"(?m)^version: (\S+)$"),
    ):
        written = re.search(pattern, (root / name).read_text(encoding="utf-8"))
        if written is None or written[1] != version:
            found.append(f"{name} has version {written and written[1]}, expected {version}.")
    told = section((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    if told is None:
        found.append(f"CHANGELOG.md has no section [{version}].")
    elif not re.fullmatch(r"\d{4}-\d\d-\d\d", told[0]):
        found.append(f"The section [{version}] of CHANGELOG.md has the date '{told[0]}', expected YYYY-MM-DD.")
    return found


def main() -> None:
    """Parse, check, write the notes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("version")
    parser.add_argument("--notes", type=Path, metavar="FILE")
    args = parser.parse_args()
    if found := problems(args.version):
        sys.exit("\n".join(f"error: {line}" for line in found))
    told = section((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), args.version)
    if args.notes is not None and told is not None:
        args.notes.write_text(told[1] + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
