"""Which weight gets which format: ordered rules, first match wins, vectors stay float32.

Pure: names and shapes in, a plan out. Also the text form of formats (``int4-b32-asym-search``) that profiles and
``--format`` use.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol, cast

from edgedistill.errors import UsageError
from edgedistill.quantize.spec import (
    BLOCK_SIZES,
    FLOAT32,
    SCALE_BITS,
    STORED_BITS,
    W8A8,
    ArraySpec,
    Method,
    WeightFormat,
    array_specs,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PREFILL = "prefill."
"""Before the names of weights of the second form, which serves steps of several tokens."""
MATRIX_KINDS = ("linear", "embedding", "experts")
ACCURACY_LEVELS = (0, 1, 4)
DEFAULT_FORMATS = {
    bits: WeightFormat(bits=bits, block_size=64 if bits == 8 else 32, symmetric=bits >= 6, method="search")
    for bits in STORED_BITS
}
"""What ``int4``, ``int8`` and the like mean when nothing else is said."""


class Plannable(Protocol):
    """What a plan needs to know of a weight; ``architecture.spec.LogicalWeight`` is one."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def aliases(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Rule:
    """Weights whose name or an alias matches the shell pattern ``match`` (case-sensitive) get ``format``."""

    match: str
    format: WeightFormat

    def matches(self, weight: Plannable) -> bool:
        return any(fnmatchcase(name, self.match) for name in (weight.name, *weight.aliases))


@dataclass(frozen=True, slots=True)
class PlannedWeight:
    """One weight of the plan: ``shape`` [N, K] or [N], and the ``arrays`` that store it."""

    weight_name: str
    shape: tuple[int, ...]
    format: WeightFormat
    arrays: tuple[ArraySpec, ...]

    @property
    def parameters(self) -> int:
        """Elements of the unquantized weight."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Stored bytes, scales and zero points included."""
        return sum(array.nbytes for array in self.arrays)


@dataclass(frozen=True, slots=True)
class Plan:
    """Formats of all weights, in the order given, and the rules that match no matrix."""

    weights: tuple[PlannedWeight, ...]
    unused_rules: tuple[Rule, ...] = ()

    @property
    def parameters(self) -> int:
        return sum(weight.parameters for weight in self.weights if not weight.weight_name.startswith(PREFILL))

    @property
    def nbytes(self) -> int:
        return sum(weight.nbytes for weight in self.weights)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per parameter over all weights, both forms where there are two; 0.0 for an empty plan."""
        return 8 * self.nbytes / self.parameters if self.parameters else 0.0

    @property
    def is_calibrated(self) -> bool:
        """Whether a format asks for calibration data."""
        return any(weight.format.method == "gptq" and not weight.format.is_float for weight in self.weights)

    def by_name(self) -> dict[str, PlannedWeight]:
        return {weight.weight_name: weight for weight in self.weights}


def plan_weights(weights: Iterable[Plannable], default: WeightFormat, rules: Sequence[Rule] = ()) -> Plan:
    """Give every weight a format.

    Matrices ([N, K], kind ``linear`` or ``embedding``) take the format of the first rule that matches their name or one
    of their aliases, else ``default``. Vectors are float32 whatever the rules say, so a rule that matches no matrix
    is reported in ``unused_rules``; one that an earlier rule merely comes before is not (an ``embed`` rule after an
    ``lm_head`` rule, where the two are tied).
    """
    weights = tuple(weights)
    planned: list[PlannedWeight] = []
    used: set[int] = set()
    for weight in weights:
        fmt = FLOAT32
        if weight.kind in MATRIX_KINDS and len(weight.shape) == 2:
            fmt = default
            matching = [index for index, rule in enumerate(rules) if rule.matches(weight)]
            used.update(matching)
            if matching:
                fmt = rules[matching[0]].format
            rows, columns = weight.shape
            arrays = array_specs(weight.name, (rows, columns), fmt)
        else:
            arrays = (ArraySpec(weight.name, "float32", weight.shape),)
        planned.append(PlannedWeight(weight.name, weight.shape, fmt, arrays))
    planned = _as_experts(planned, {weight.name for weight in weights if weight.kind == "experts"})
    unused = tuple(rule for index, rule in enumerate(rules) if index not in used)
    return Plan(tuple(planned), unused)


def _as_experts(planned: list[PlannedWeight], experts: set[str]) -> list[PlannedWeight]:
    """Formats of experts' matrices as their kernel takes them: no W8A8, which becomes 8 bits, and one block size for
    both matrices of a layer, which divides the rows of both.

    Raises UsageError where the two are not float32 or not of one width of codes in the kernel.
    """
    pairs: dict[str, list[PlannedWeight]] = {}
    for weight in planned:
        if weight.weight_name in experts:
            pairs.setdefault(weight.weight_name.rpartition(".")[0], []).append(weight)
    changed: dict[str, PlannedWeight] = {}
    for name, pair in pairs.items():
        if len({weight.format.kernel_bits for weight in pair}) > 1:
            asked = " and ".join(f"{w.weight_name.rpartition('.')[2]} {w.format.label()}" for w in pair)
            raise UsageError(
                f"{name}: {asked.replace(' ', ' is to be ', 1)}; the kernel of experts takes codes of one width.",
                hint=f"One rule for {name}.* gives both the same format.",
            )
        if pair[0].format.is_float:
            continue
        formats = [DEFAULT_FORMATS[8] if weight.format.is_w8a8 else weight.format for weight in pair]
        widths = [weight.shape[1] for weight in pair]
        block = min(fmt.block_size for fmt in formats)
        block = next((size for size in reversed(BLOCK_SIZES) if size <= block and not any(k % size for k in widths)), 0)
        level = min(fmt.accuracy_level for fmt in formats)
        for weight, fmt in zip(pair, formats, strict=True):
            fitting = replace(fmt, block_size=block, accuracy_level=level)
            rows, columns = weight.shape
            arrays = array_specs(weight.weight_name, (rows, columns), fitting)
            changed[weight.weight_name] = replace(weight, format=fitting, arrays=arrays)
    return [changed.get(weight.weight_name, weight) for weight in planned]


def override(
    default: WeightFormat,
    rules: Sequence[Rule],
    *,
    weight_format: WeightFormat | None = None,
    block_size: int | None = None,
) -> tuple[WeightFormat, tuple[Rule, ...]]:
    """Default and rules after ``--format`` and ``--block-size``.

    ``weight_format`` replaces the default and drops every rule: all matrices get it. ``block_size`` then replaces the
    block size of every quantized format that is left.

    Raises:
        UsageError: ``block_size`` is not one of ``BLOCK_SIZES``, or there is nothing quantized that it could apply to.
    """
    kept = tuple(rules)
    if weight_format is not None:
        default, kept = weight_format, ()
    if block_size is not None:
        size = _block_size(block_size, f"--block-size {block_size}")
        if all(fmt.is_float or fmt.is_w8a8 for fmt in (default, *(rule.format for rule in kept))):
            raise UsageError(
                f"--block-size {size} has no effect: every weight is {default.label()}.",
                hint="Leave it out, or add --format int4.",
            )
        default = _with_block(default, size)
        kept = tuple(Rule(rule.match, _with_block(rule.format, size)) for rule in kept)
    return default, kept


def solved(fmt: WeightFormat) -> WeightFormat:
    """The format with method ``gptq`` in place of scale search; rounding to nearest, W8A8 and floats stay."""
    searches = fmt.method == "search" and not fmt.is_float and not fmt.is_w8a8
    return replace(fmt, method="gptq") if searches else fmt


def searched(fmt: WeightFormat) -> WeightFormat:
    """The format that ``fmt`` comes to where nothing was calibrated: the inverse of ``solved``."""
    return replace(fmt, method="search") if fmt.method == "gptq" else fmt


_TOKEN = re.compile(
    r"b(?P<block>\d+)|(?P<symmetry>sym|asym)|(?P<method>rtn|search|gptq|kept)|acc(?P<accuracy>\d+)|s(?P<scale>\d+)"
    r"|(?P<offsets>offsets)"
)


def parse_format(text: str) -> WeightFormat:
    """Read ``fp32`` or ``int<bits>[-b<block>][-sym|-asym][-rtn|-search|-gptq][-s<bits>][-acc<level>]``, in any order.

    Parts left out come from ``DEFAULT_FORMATS``; inverse of ``WeightFormat.label``.

    Raises:
        UsageError: not such a text; names the part that is wrong.
    """
    head, *parts = text.strip().lower().split("-")
    if head in ("fp32", "float32") and not parts:
        return FLOAT32
    defaults = {f"int{bits}": fmt for bits, fmt in DEFAULT_FORMATS.items()}
    if head == "w8a8":
        return _parse_w8a8(text, parts)
    if head not in defaults:
        raise _format_error(text, f"`{head}`" if head not in ("fp32", "float32") else f"`{parts[0]}` after `{head}`")
    fmt = defaults[head]
    seen: set[str] = set()
    for part in parts:
        match = _TOKEN.fullmatch(part)
        if match is None or match.lastgroup is None:
            raise _format_error(text, f"`{part}`")
        group, value = match.lastgroup, match[match.lastgroup]
        if group in seen:
            raise _format_error(text, f"`{part}` beside another part of its kind")
        seen.add(group)
        fmt = _with_part(fmt, group, value, text)
    if fmt.offsets and fmt.method != "kept":
        raise _format_error(text, "`offsets`, which only a source that is quantized already has")
    return fmt


def _with_part(fmt: WeightFormat, group: str, value: str, text: str) -> WeightFormat:
    """``fmt`` with the part ``value`` of the kind ``group`` of the format ``text``."""
    if group == "block":
        return replace(fmt, block_size=_block_size(int(value), f"`b{value}` in format {text!r}"))
    if group == "symmetry":
        return replace(fmt, symmetric=value == "sym")
    if group == "method":
        return replace(fmt, method=cast("Method", value))
    if group == "offsets":
        return replace(fmt, offsets=True)
    if group == "scale" and int(value) in SCALE_BITS:
        return replace(fmt, scale_bits=int(value))
    if group == "accuracy" and int(value) in ACCURACY_LEVELS:
        return replace(fmt, accuracy_level=int(value))
    raise _format_error(text, f"`{'acc' if group == 'accuracy' else 's'}{value}`")


def _parse_w8a8(text: str, parts: list[str]) -> WeightFormat:
    """The rest of ``w8a8[-sym|-asym][-rtn|-search]``: zero points of activations, and how weights are rounded."""
    fmt = W8A8
    kinds = {"sym": "symmetry", "asym": "symmetry", "rtn": "method", "search": "method"}
    seen: set[str] = set()
    for part in parts:
        kind = kinds.get(part)
        if kind is None or kind in seen:
            raise UsageError(
                f"Weight format {text!r} is not known: found `{part}`, expected w8a8 followed by any of -sym|-asym, "
                "-rtn|-search.",
                hint="For example: w8a8-asym-search.",
            )
        seen.add(kind)
        fmt = replace(fmt, symmetric=part == "sym") if kind == "symmetry" else replace(fmt, method=cast("Method", part))
    return fmt


def _format_error(text: str, found: str) -> UsageError:
    blocks = "|".join(str(size) for size in BLOCK_SIZES)
    levels = "|".join(str(level) for level in ACCURACY_LEVELS)
    bits = "|".join(f"int{width}" for width in STORED_BITS)
    return UsageError(
        f"Weight format {text!r} is not known: found {found}, expected fp32, w8a8 or {bits} followed by any of "
        f"-b{blocks}, -sym|-asym, -rtn|-search|-gptq, -s{'|'.join(map(str, SCALE_BITS))}, -acc{levels}.",
        hint="For example: int4-b32-asym-search.",
    )


def _block_size(size: int, found: str) -> int:
    if size not in BLOCK_SIZES:
        nearest = min(BLOCK_SIZES, key=lambda known: abs(known - size))
        raise UsageError(
            f"{found} is not a supported block size; expected one of {', '.join(map(str, BLOCK_SIZES))}.",
            hint=f"The nearest is {nearest}.",
        )
    return size


def _with_block(fmt: WeightFormat, size: int) -> WeightFormat:
    return fmt if fmt.is_float or fmt.is_w8a8 else replace(fmt, block_size=size)
