"""Opens suites by name or path, and checks the rules that hold for every suite."""

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
"""Names of other arithmetic suites, with seed and prompts per band, as ``arithmetic_suite`` makes them."""


def load_suite(name_or_path: str | Path, options: SuiteOptions | None = None) -> Suite:
    """The suite of ``open_suite``, which see."""
    return open_suite(name_or_path, options).suite


def open_suite(name_or_path: str | Path, options: SuiteOptions | None = None) -> ReadFile:
    """Open and validate a suite.

    Args:
        name_or_path: Name of a built-in suite; a file or directory (anything with a separator or a suffix); or
            ``hub:OWNER/NAME``, a data set on the Hugging Face Hub (extra: datasets). ``arithmetic-seed7x60`` is
            arithmetic with another seed and 60 prompts in each of its five bands.
        options: For files.

    Raises:
        SuiteError: There is no such suite (the message has the nearest name), the file is malformed (with line or
            entry), a rule is broken, replies would be run as programs without ``allow_code``, or a built-in suite has
            options that are for files.
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
    """A sentence if ``prompts`` is more than the suite has, with the arithmetic suite that has as many."""
    if prompts is None or prompts <= len(suite.prompts):
        return []
    sentence = f"{prompts} prompts were requested, and the suite `{suite.name}` has {len(suite.prompts)}"
    if _seed(suite) is None:
        return [f"{sentence}."]
    larger = enlarged(suite, prompts)
    if larger is None:
        return [f"{sentence}, the most that arithmetic of one seed can have."]
    return [f"{sentence}. `--suite {larger.name}` has {len(larger.prompts)}."]


def enlarged(suite: Suite, prompts: int) -> Suite | None:
    """A generated suite with at least ``prompts`` prompts, or the most of one seed, that begins with the present ones.

    None for a suite that is not generated, or that already has as many.
    """
    seed = _seed(suite)
    per_band = min(-(-prompts // len(BANDS)), MOST_PER_BAND)
    if seed is None or len(suite.prompts) >= per_band * len(BANDS):
        return None
    return arithmetic_suite(seed, per_band)


def _seed(suite: Suite) -> int | None:
    """Seed of a generated suite; None for any other, also for a file with the same name."""
    generated = _ARITHMETIC.fullmatch(suite.name)
    if (suite.name != "arithmetic" and generated is None) or suite != load_suite(suite.name):
        return None
    return 0 if generated is None else int(generated[1])


def validate_suite(suite: Suite) -> None:
    """Check the rules that hold for every suite.

    Raises:
        SuiteError: There are no prompts; ids are not unique over prompts and variants; a variant or a check is unknown;
            only some prompts have gold answers.
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
