"""Tries a finished bundle before it gets its name: opens it and decodes a few tokens, in a process of its own.

A separate process gives the memory back, survives a crash of the native runtime, and measures what opening the
bundle costs. ``python -m edgedistill.export.probe DIR`` is that process: manifest on stdin, JSON on stdout.

Must not know: how the bundle was made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.errors import EdgedistillError, ExportError
from edgedistill.manifest import Manifest

if TYPE_CHECKING:
    from edgedistill.progress import Progress

PROMPT = "What is 12 + 30?"
TOKENS = 8


def checked(directory: Path, manifest: Manifest, *, progress: Progress) -> Manifest:
    """The manifest with the outcome of the trial in ``check``.

    Raises:
        ExportError: The bundle does not open, or its logits are not finite.
    """
    progress.begin("trying the bundle", 0, "tokens")
    process = subprocess.run(
        [sys.executable, "-m", "edgedistill.export.probe", str(directory)],
        input=manifest.to_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    progress.end()
    try:
        outcome: dict[str, Any] = json.loads(process.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        reason = process.stderr.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        outcome = {"error": reason[0]}
    if "error" in outcome:
        raise ExportError(
            f"The exported bundle failed its trial decode ({outcome['error']}).",
            hint="Nothing was left at the output path; please report the model's config.",
        )
    return dataclasses.replace(manifest, check=outcome)


def own_peak_rss() -> int:
    """Peak resident set of this process in bytes (children not counted).

    Linux: VmHWM, because ru_maxrss survives exec and would report the parent's peak in a child.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _main(directory: Path, manifest_text: str) -> dict[str, Any]:
    import numpy as np

    from edgedistill.bundle import Bundle
    from edgedistill.runtime.generate import GenerationSettings
    from edgedistill.runtime.model import Model

    model = Model(Bundle(directory, Manifest.from_json(manifest_text)))
    settings = GenerationSettings(temperature=0.0, max_new_tokens=TOKENS, ignore_eos=True)
    generation = model.generate([{"role": "user", "content": PROMPT}], settings=settings)
    finite = bool(np.isfinite(model.score(generation.tokens)).all())
    if not finite:
        return {"error": "logits are not finite"}
    return {
        "prompt": PROMPT,
        "tokens": list(generation.tokens),
        "text": generation.text,
        "load_s": model.load_s,
        "peak_rss_bytes": own_peak_rss(),
    }


if __name__ == "__main__":
    try:
        result = _main(Path(sys.argv[1]), sys.stdin.read())
    except EdgedistillError as error:
        result = {"error": str(error)}
    except Exception as error:  # the parent reports every failure of the trial as one line
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result))  # noqa: T201
