"""Build the wheel, install it into an empty environment and use it as somebody who has nothing else would.

``make wheel-test``, or with any Python of a clone: python tests/support/wheel_check.py [--wheel FILE]. The dependencies
come from pip's index. The base alone has to start, say what exporting needs, and run a bundle; with the extra
``export`` it makes one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parents[2]
SIZE = (
    "import importlib.metadata as m;"
    "print(sum(f.size or 0 for d in m.distributions() if d.name.lower() not in ('pip', 'setuptools')"
    " for f in d.files or () if f.suffix != '.pyc') // 1_000_000)"
)


def say(text: str) -> None:
    """One line of progress."""
    print(f"== {text}", flush=True)


def call(*command: str | Path, code: int = 0, capture: bool = False) -> str:
    """Run a command away from the clone, so that nothing of it is imported; its output where it is captured."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=tempfile.gettempdir(),
        env=environment,
        stdout=subprocess.PIPE if capture else None,
        stderr=subprocess.STDOUT if capture else None,
        text=True,
        check=False,
    )
    if done.returncode != code:
        sys.exit(
            f"error: exit code {done.returncode}, expected {code}: {' '.join(map(str, command))}\n{done.stdout or ''}"
        )
    return done.stdout or ""


def check(wheel: Path, place: Path) -> None:
    """Install ``wheel`` below ``place`` and use it."""
    venv.create(place / "env", with_pip=True)
    programs = place / "env" / ("Scripts" if os.name == "nt" else "bin")
    python, edgedistill, bundle = programs / "python", programs / "edgedistill", place / "bundle"
    pip = (python, "-m", "pip", "--disable-pip-version-check")

    say("the base alone")
    call(*pip, "install", "--constraint", ROOT / "constraints.txt", wheel)
    say(f"{call(edgedistill, '--version', capture=True).strip()}, {call(python, '-c', SIZE, capture=True).strip()} MB")
    refused = call(edgedistill, "export", "tiny-reasoner", "-o", bundle, code=2, capture=True)
    if "pip install 'onnx" not in refused or len(refused.splitlines()) != 1:
        sys.exit(f"error: without the extra, export said: {refused}")
    print(refused, end="")

    say("with the extra export")
    call(*pip, "install", "--constraint", ROOT / "constraints.txt", f"{wheel}[export]")
    call(edgedistill, "export", "tiny-reasoner", "-o", bundle)

    say("the bundle on the base alone")
    call(*pip, "uninstall", "--quiet", "--yes", "onnx", "onnx-ir", "gguf")
    call(edgedistill, "inspect", bundle)
    call(edgedistill, "run", bundle, "What is 17 + 25?", "--temperature", "0")


def main() -> None:
    """Parse, build where no wheel is given, check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wheel", type=Path, metavar="FILE", help="check this one instead of building one")
    given = parser.parse_args().wheel
    with tempfile.TemporaryDirectory(prefix="edgedistill-wheel-") as name:
        place = Path(name)
        if given is None:
            say("build the wheel")
            call(sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "-w", place, ROOT)
            (given,) = place.glob("edgedistill-*.whl")
        check(given.resolve(), place)
    say("the wheel works")


if __name__ == "__main__":
    main()
