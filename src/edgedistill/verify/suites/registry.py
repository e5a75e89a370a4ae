"""Suites by name or path: the built-in ones, and the rules that every suite must keep."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.errors import SuiteError
from edgedistill.verify.suites.arithmetic import MOST_PER_BAND, arithmetic_suite
from edgedistill.verify.suites.arithmetic_problems import BANDS
from edgedistill.verify.suites.checks import validate as validate_check
from edgedistill.verify.suites.files import HUB, ReadFile, read_file
from edgedistill.verify.suites.instructions import instruction_suite
from edgedistill.verify.suites.open_ended import open_ended_suite
from edgedistill.verify.suites.options import SuiteOptions

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgedistill.verify.types import Suite

BUILT_IN: dict[str, Callable[[], Suite]] = {
    "arithmetic": arithmetic_suite,
    "instructions": instruction_suite,
    "open-ended": open_ended_suite,
}

_ARITHMETIC = re.compile(r"arithmetic-seed(\d{1,18})x(\d{1,6})")
"""Other arithmetic suites: seed and prompts of each band; the name that ``arithmetic_suite`` gives them."""


def load_suite(name_or_path: str | Path, options: SuiteOptions | None = None) -> Suite:
    """The suite that ``open_suite`` opens."""
    return open_suite(name_or_path, options).suite


def open_suite(name_or_path: str | Path, options: SuiteOptions | None = None) -> ReadFile:
    """A built-in suite by name, or the file or directory at a path (anything with a separator or a suffix);
    validated. ``hub:OWNER/NAME`` is a data set of the Hugging Face Hub (extra: datasets).

    ``arithmetic-seed7x60`` is arithmetic of another seed with 60 prompts in each of its five bands.

    Raises:
        SuiteError: no such suite (with the nearest name), a malformed file (with the line or entry), a broken rule;
            programs to run that were not allowed, options of files for a built-in suite.
    """
    text = str(name_or_path)
    options = options or SuiteOptions()
    generated = _ARITHMETIC.fullmatch(text) if isinstance(name_or_path, str) else None
    if isinstance(name_or_path, str) and (text in BUILT_IN or generated is not None):
        if options != SuiteOptions(allow_code=options.allow_code):
            raise SuiteError(
                f"Suite `{text}` is built in; --map, --template, --few-shot, --tolerance and --split are for files.",
                hint="Leave them out, or name a file.",
            )
        read = ReadFile(
            BUILT_IN[text]() if generated is None else arithmetic_suite(int(generated[1]), int(generated[2]))
        )
    elif isinstance(name_or_path, str) and text.startswith(HUB):
        read = read_file(text, options)
    else:
        path = Path(name_or_path)
        if not path.suffix and "/" not in text and not path.exists():
            near = difflib.get_close_matches(text, BUILT_IN, n=1)
            guess = f" Did you mean `{near[0]}`?" if near else ""
            raise SuiteError(
                f"Suite `{text}` is unknown; expected one of {', '.join(BUILT_IN)}, or the path of a JSONL, JSON, CSV "
                f"or Parquet file or of a directory of such files.{guess}"
            )
        read = read_file(path, options)
    suite = read.suite
    validate_suite(suite)
    if not options.allow_code and (programs := sum(prompt.extract == "code" for prompt in suite.prompts)):
        raise SuiteError(
            f"Suite `{suite.name}` scores {programs} prompts by running the programs that replies contain, as your user"
            ", with limits of time and memory; that has to be asked for.",
            hint="If you trust the model that far: --allow-code",
        )
    return read


def lacking_prompts(suite: Suite, prompts: int | None) -> list[str]:
    """A sentence if more prompts were asked for than the suite has, with the arithmetic suite that has them."""
    if prompts is None or prompts <= len(suite.prompts):
        return []
    told = f"{prompts} prompts were asked for, and the suite `{suite.name}` has {len(suite.prompts)}"
    if _seed(suite) is None:
        return [f"{told}."]
    larger = enlarged(suite, prompts)
    if larger is None:
        return [f"{told}, the most that arithmetic of one seed can have."]
    return [f"{told}. `--suite {larger.name}` has {len(larger.prompts)}."]


def enlarged(suite: Suite, prompts: int) -> Suite | None:
    """A generated suite with at least so many prompts, or the most that one seed gives, the present ones among them.

    None for a suite that is not generated, or has as many.
    """
    seed = _seed(suite)
    per_band = min(-(-prompts // len(BANDS)), MOST_PER_BAND)
    if seed is None or len(suite.prompts) >= per_band * len(BANDS):
        return None
    return arithmetic_suite(seed, per_band)


def _seed(suite: Suite) -> int | None:
    """Of a generated suite; a file may have the name of one."""
    generated = _ARITHMETIC.fullmatch(suite.name)
    if (suite.name != "arithmetic" and generated is None) or suite != load_suite(suite.name):
        return None
    return 0 if generated is None else int(generated[1])


def validate_suite(suite: Suite) -> None:
    """Check what every suite must keep, wherever it comes from.

    Raises:
        SuiteError: no prompts; ids that are not unique over prompts and variants; a variant of a prompt that does not
            exist; a check that does not exist; gold answers on some prompts only.
    """
    if not suite.prompts:
        raise SuiteError(f"Suite `{suite.name}` has no prompts; expected at least one.")
    ids = Counter(prompt.id for prompt in (*suite.prompts, *suite.variants))
    for prompt_id, count in ids.items():
        if count > 1:
            raise SuiteError(f"Suite `{suite.name}`: the id `{prompt_id}` occurs {count} times; expected once.")
    known = {prompt.id for prompt in suite.prompts}
    for variant in suite.variants:
        if variant.variant is None:
            raise SuiteError(f"Suite `{suite.name}`: the variant `{variant.id}` does not say what was varied.")
        if variant.variant != "empty" and variant.variant_of not in known:
            raise SuiteError(
                f"Suite `{suite.name}`: `{variant.id}` varies `{variant.variant_of}`, which is not a prompt of it."
            )
    for prompt in (*suite.prompts, *suite.variants):
        for check in prompt.checks:
            validate_check(check)
        if (prompt.extract == "checks") != bool(prompt.checks):
            raise SuiteError(
                f"Suite `{suite.name}`: `{prompt.id}` has checks without `extract: checks`, or the reverse."
            )
    without = [prompt.id for prompt in suite.prompts if not prompt.scored]
    if without and len(without) < len(suite.prompts):
        raise SuiteError(
            f"Suite `{suite.name}`: {len(without)} of {len(suite.prompts)} prompts have no gold answer (the first is "
            f"`{without[0]}`); expected one on all of them or on none.",
            hint="Split it into two suites.",
        )


def require_gold(suite: Suite, metric: str) -> None:
    """Raises SuiteError if ``metric`` needs gold answers and the suite has none."""
    if not suite.has_gold:
        raise SuiteError(
            f"Suite `{suite.name}` has no gold answers, and {metric} needs them.",
            hint="Add `answer` to its prompts, or leave the metric out.",
        )
