"""Tries a finished bundle before it gets its name: opens it and decodes a few tokens, in a process of its own.

A separate process gives the memory back, survives a crash of the native runtime, and measures what opening the
bundle costs. ``python -m edgedistill.export.trial_run DIR`` is that process: manifest on stdin, JSON on stdout.

Must not know: how the bundle was made.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.bundle.bundle import TOKENIZER, WEIGHTS
from edgedistill.bundle.manifest import Manifest
from edgedistill.errors import EdgedistillError, ExportError

if TYPE_CHECKING:
    from edgedistill.progress import Progress

PROMPT = "What is 12 + 30?"
TOKENS = 8
SLICED_TOKENS = 2
WHOLE_LIMIT = 1 << 30
"""Weights files larger than this are tried in slices, in constant memory: the machine that exports need not be able
to run the model."""


def checked(directory: Path, manifest: Manifest, *, progress: Progress) -> Manifest:
    """The manifest with the outcome of the trial in ``check``.

    Raises:
        ExportError: The bundle does not open, or its logits are not finite.
    """
    progress.begin("trying the bundle", 0, "tokens")
    process = subprocess.run(
        [sys.executable, "-m", "edgedistill.export.trial_run", str(directory)],
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


def _main(directory: Path, manifest: Manifest) -> dict[str, Any]:
    started = time.perf_counter()
    if (directory / WEIGHTS).stat().st_size > WHOLE_LIMIT and manifest.model.signature == "edgedistill":
        mode, (tokens, text) = "slices", _in_slices(directory, manifest)
    else:
        mode, (tokens, text) = "whole", _whole(directory, manifest)
    return {
        "mode": mode,
        "prompt": PROMPT,
        "tokens": tokens,
        "text": text,
        "seconds": time.perf_counter() - started,
        "peak_rss_bytes": own_peak_rss(),
    }


def _whole(directory: Path, manifest: Manifest) -> tuple[list[int], str]:
    import numpy as np

    from edgedistill.bundle.bundle import Bundle
    from edgedistill.runtime.generate import GenerationSettings
    from edgedistill.runtime.model import Model

    model = Model(Bundle(directory, manifest))
    settings = GenerationSettings(temperature=0.0, max_new_tokens=TOKENS, ignore_eos=True)
    generation = model.generate(PROMPT, settings=settings, raw=True)
    if not np.isfinite(model.score(generation.tokens)).all():
        raise ExportError("Logits are not finite.")
    return list(generation.tokens), generation.text


def _in_slices(directory: Path, manifest: Manifest) -> tuple[list[int], str]:
    from tokenizers import Tokenizer

    from edgedistill.export.calibrate import sliced_run as sliced

    tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
    prompt = tokenizer.encode(PROMPT, add_special_tokens=False).ids or [0]
    tokens = sliced.decode(directory, manifest, prompt, SLICED_TOKENS)
    return tokens, tokenizer.decode(tokens)


if __name__ == "__main__":
    try:
        result = _main(Path(sys.argv[1]), Manifest.from_json(sys.stdin.read()))
    except EdgedistillError as error:
        result = {"error": str(error)}
    except Exception as error:  # the parent reports every failure of the trial as one line
        result = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(result))  # noqa: T201
