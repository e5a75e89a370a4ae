"""Settings of the UI that outlive it: theme, frames, keys, where exports go. A small TOML file that people may edit."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from edgedistill.atomic_file import write_whole
from edgedistill.errors import EdgedistillError

CLIPBOARDS = ("auto", "terminal", "file")
DEFAULT_THEME = "edgedistill"


class ConfigError(EdgedistillError):
    """A settings file that cannot be read or written."""


@dataclass(slots=True)
class Config:
    """Settings with their defaults.

    Attributes:
        theme: Name of a Textual theme; ``ansi-dark`` and ``ansi-light`` take the terminal's own colours.
        frames_per_s: Most frames a second while text arrives; 0: 15, over SSH 5.
        unfold_reasoning: Show reasoning unfolded.
        export_dir: Where exports and copies go; empty: the current directory.
        clipboard: ``auto``, ``terminal`` (OSC 52) or ``file``.
        keys: Binding id to key, for what was rebound.
    """

    theme: str = DEFAULT_THEME
    frames_per_s: float = 0.0
    unfold_reasoning: bool = False
    export_dir: str = ""
    clipboard: str = "auto"
    keys: dict[str, str] = field(default_factory=dict)
    path: Path | None = None

    @property
    def exports(self) -> Path:
        """The directory for exports."""
        return Path(self.export_dir).expanduser() if self.export_dir else Path.cwd()

    @classmethod
    def load(cls, path: Path) -> Config:
        """Read ``path``; defaults where it does not exist. Raises ConfigError for what makes no sense."""
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(path=path)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: {error}.", hint="Correct or remove the file.") from error
        known = {f.name: f for f in fields(cls) if f.name != "path"}
        for name, value in values.items():
            expected = type(getattr(cls(), name)) if name in known else None
            if expected is float and isinstance(value, int) and not isinstance(value, bool):
                values[name] = float(value)
            elif expected is None or not isinstance(value, expected):
                found = f"an unknown setting {name!r}" if expected is None else f"{name} = {value!r}"
                wanted = f"expected one of {', '.join(known)}" if expected is None else f"expected {expected.__name__}"
                raise ConfigError(f"{path}: found {found}, {wanted}.", hint="Correct or remove the line.")
        return cls(**values, path=path)

    def save(self) -> None:
        """Write the file; raises ConfigError."""
        if self.path is None:
            return
        lines = [f"{f.name} = {_toml(getattr(self, f.name))}" for f in fields(self) if f.name not in ("path", "keys")]
        lines += ["", "[keys]", *(f"{_toml(name)} = {_toml(key)}" for name, key in sorted(self.keys.items()))]
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, "\n".join(lines) + "\n")
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror or error}.", hint="The settings hold for now.") from error


def _toml(value: Any) -> str:
    """A string, number or boolean: JSON's form of them is also TOML's."""
    return json.dumps(value)
