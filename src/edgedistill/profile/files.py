"""Where profile files are, and how ``extends`` merges them into one table."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.errors import ProfileError
from edgedistill.schema import Form, nearest_name

if TYPE_CHECKING:
    from collections.abc import Mapping


FORM = Form(
    ProfileError,
    hint="profiles/README.md documents every key; `edgedistill profiles show laptop-cpu` prints a whole profile.",
    strict=True,
    max_bytes=1 << 20,
)


def user_profile_directory() -> Path:
    """Where a user's own profiles live; it need not exist."""
    from platformdirs import user_config_path

    return user_config_path("edgedistill", appauthor=False) / "profiles"


def profile_directories() -> list[tuple[str, Path]]:
    """Search order. Built-ins lie inside the wheel, or at the top of the repository in an editable install."""
    package = Path(__file__).resolve().parents[1]
    candidates = [
        ("user", user_profile_directory()),
        ("built-in", package / "_profiles"),
        ("built-in", package.parent.parent / "profiles"),
    ]
    return [(origin, path) for origin, path in candidates if path.is_dir()]


def read_profile_table(name_or_path: str) -> tuple[Path, dict[str, Any]]:
    """The file that ``name_or_path`` means and its table with ``extends`` resolved; ``name`` defaults to the file's.

    Raises:
        ProfileError: no such file or name, malformed TOML, unreadable file, a cycle of ``extends``.
    """
    path = _find(name_or_path, base=Path(), asked_by=None, skip=None)
    table = _load_table(path, ())
    table.setdefault("name", path.stem)
    return path, table


def _find(text: str, *, base: Path, asked_by: Path | None, skip: Path | None) -> Path:
    """The file that ``text`` (a name, or a path relative to ``base``) means. ``skip``: the file that extends its own
    name, so that a user's ``laptop-cpu`` can build on the built-in one."""
    prefix = f"{asked_by}: `extends`: " if asked_by else ""
    if text.endswith(".toml") or "/" in text or "\\" in text:
        path = base / text
        if not path.is_file():
            raise ProfileError(
                f"{prefix}No profile file {path}; expected a TOML file.",
                hint="`edgedistill profiles list` shows the names.",
            )
        return path
    names: list[str] = []
    for _, directory in profile_directories():
        path = directory / f"{text}.toml"
        if path.is_file() and not (skip and path.resolve() == skip.resolve()):
            return path
        names += [known.stem for known in directory.glob("*.toml")]
    nearest = nearest_name(text, names)
    listed = ", ".join(sorted(set(names))) or "none"
    raise ProfileError(
        f"{prefix}Unknown profile {text!r}; expected one of {listed}.",
        hint=f"Did you mean {nearest!r}?" if nearest else "A path to a .toml file works too.",
    )


def _load_table(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """The table of ``path`` merged over the one that it extends. ``chain``: the files that led here."""
    resolved = path.resolve()
    if resolved in chain:
        files = " -> ".join(link.name for link in (*chain, resolved))
        raise ProfileError(f"{path}: `extends` goes in a circle: {files}.", hint="Remove one `extends`.")
    table = _parse(path)
    parent = table.pop("extends", None)
    if parent is None:
        return table
    if not isinstance(parent, str) or not parent:
        raise ProfileError(f"{path}: `extends` is {parent!r}; expected the name or the path of a profile.")
    found = _find(parent, base=path.parent, asked_by=path, skip=path)
    inherited = _load_table(found, (*chain, resolved))
    # A child is another machine: neither the parent's name nor its proof of having been run is inherited.
    inherited.pop("name", None)
    inherited.pop("verified_on", None)
    return _merge(inherited, table)


def _parse(path: Path) -> dict[str, Any]:
    text = FORM.read_text(path)
    try:
        return tomllib.loads(text)
    except RecursionError as error:
        raise ProfileError(f"{path}: malformed TOML: tables or lists nested too deeply.") from error
    except ValueError as error:
        where = str(error).replace("at end of document", f"at line {len(text.splitlines())}, the end of the file")
        raise ProfileError(f"{path}: malformed TOML: {where}.") from error


def _merge(parent: Mapping[str, Any], child: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge key by key; any other value, lists included, replaces the parent's."""
    merged = dict(parent)
    for key, value in child.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
