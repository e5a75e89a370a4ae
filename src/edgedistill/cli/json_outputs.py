"""What every command prints with ``--json``: a type for each, from which the published schemas are derived.

``schema("plan")`` is the JSON schema of ``edgedistill plan --json``. The reference page and the ``.schema.json`` files
of the documentation are made from it, and a test runs every command and validates what it prints. Commands do not
import this module.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from edgedistill._version import __version__
from edgedistill.bundle.manifest import FileEntry, KVCacheInfo, Manifest, ModelInfo, WeightEntry
from edgedistill.catalog.builtin import CatalogEntry
from edgedistill.comparison.quality import Quality
from edgedistill.estimate.memory import Budget
from edgedistill.estimate.timings import Machine
from edgedistill.profile.profile import ProfileEntry
from edgedistill.quantize.spec import WeightFormat
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.runtime.generate import FinishReason
from edgedistill.runtime.logprobs import TokenLogprob
from edgedistill.runtime.measure.bench import BenchResult, Rate
from edgedistill.runtime.measure.selftest import SelfTestResult
from edgedistill.runtime.settings import Numerics
from edgedistill.runtime.stats import GenerationStats
from edgedistill.system.hardware import Hardware
from edgedistill.trajectories.options import VoteRule
from edgedistill.trajectories.result import DecidedBy, RunStats, Trajectory
from edgedistill.trajectories.vote import Kind, Tally, VoteResult
from edgedistill.tune.options import Deployed, Look
from edgedistill.verify.report.json_codec import Plus, json_schema
from edgedistill.verify.report.json_schema import report_schema
from edgedistill.verify.sampling.suite_check import Unread
from edgedistill.verify.types import Message, ModelIdentity
from edgedistill.workflow.publish import Pushed

BundleBudget = Annotated[Budget, Plus(ram_bytes=int)]
Statistics = Annotated[GenerationStats, Plus(prefill_tps=float, decode_tps=float)]
Votes = Annotated[VoteResult, Plus(winner=int | None)]


class Export(TypedDict):
    """The bundle that an export made, and what that cost."""

    path: str
    bundle_bytes: int
    parameters: int
    bits_per_weight: float
    context_length: int
    seconds: float
    weights_seconds: float
    peak_rss_bytes: int
    reused_weights: int
    unused_rules: list[str]
    notes: list[str]
    check: dict[str, Any]
    verification: dict[str, Any]
    predicted: dict[str, Any]


class Speed(TypedDict):
    """Tokens per second by context length and by prompt length; bytes that a decode step reads."""

    decode_tps: dict[str, float]
    prefill_tps: dict[str, float]
    matrix_bytes: int


class PlanRow(TypedDict):
    """One bundle that could be made; ``memory`` by context length."""

    name: str
    profile: str
    bits_per_weight: float
    file_bytes: int
    kv_bytes_per_token: int
    memory: dict[str, BundleBudget]
    speed: Speed | None
    ceiling_tps: float | None
    fits: bool
    advice: str | None


class Plan(TypedDict):
    """Predictions, a row for each format and profile."""

    model: str
    family: str
    parameters: int
    rows: list[PlanRow]
    machine: Machine | None
    bandwidth_gbs: float | None
    timed_over_bytes: int | None


class Spread(TypedDict):
    """Values over several rounds."""

    median: float
    min: float
    max: float
    values: list[float]


class CompareRow(TypedDict):
    """One bundle: its size, its distance to the reference along both numerical paths, its speed and memory."""

    name: str
    reference: bool
    bundle: str
    bits_per_weight: float
    file_bytes: int
    kv_bytes_per_token: int
    fits: bool
    scoring: Quality
    decode: Quality
    decode_tps: Spread | None
    prefill_tps: Spread | None
    rss_bytes: Spread | None
    pareto: bool


class LeftOut(TypedDict):
    """A format that was not measured, and why."""

    name: str
    reason: str


class Compare(TypedDict):
    """Formats of a model side by side; ``settings``: tokens, rounds and machine."""

    model: str
    settings: dict[str, Any]
    rows: list[CompareRow]
    left_out: list[LeftOut]


class Tune(TypedDict):
    """The bundle that a tuning made, and what it gained on held-out traces."""

    path: str
    before: Deployed
    after: Deployed
    steps: int
    best_step: int
    tokens: int
    seconds: float
    reason: str
    changed_arrays: int
    looks: list[Look]


class CalledFunction(TypedDict):
    """What a call names; ``arguments``: the text of a JSON object."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A call of a tool, in OpenAI's form."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Reply(TypedDict):
    """One generation."""

    text: str
    reasoning: str
    answer: str
    tokens: list[int]
    finish_reason: FinishReason
    numerics: Numerics
    stats: Statistics
    reasoning_closed: bool
    note: str | None
    logprobs: list[TokenLogprob] | None
    tool_calls: list[ToolCall]


class Run(Reply):
    """A prompt and its reply."""

    bundle: str
    prompt: str


class RunTrajectories(TypedDict):
    """A prompt, its trajectories and the answer that they gave (with options of parallel reasoning)."""

    bundle: str
    prompt: str
    answer: str
    reasoning: str
    final: str | None
    decided_by: DecidedBy
    winner: int | None
    voted: int | None
    vote: Votes
    trajectories: list[Trajectory]
    selection: Reply | None
    deliberation: Reply | None
    notes: list[str]
    cancelled: bool
    stats: Annotated[RunStats, Plus(decode_tps=float)]


class TurnTrajectory(TypedDict):
    """One trajectory behind an answer of a conversation; ``tokens``: how many."""

    index: int
    kind: Kind
    vote: str | None
    text: str
    confidence: float | None
    tokens: int


class Turn(TypedDict):
    """A question or an answer. Answers have a finish reason and statistics, those of a vote its outcome besides."""

    role: Literal["user", "assistant"]
    content: str
    reasoning: NotRequired[str]
    finish_reason: NotRequired[str]
    stats: NotRequired[dict[str, Any]]
    trajectories: NotRequired[list[TurnTrajectory]]


class Chat(TypedDict):
    """A conversation (with ``--plain``)."""

    bundle: str
    system: str | None
    turns: list[Turn]


class WeightGroup(TypedDict):
    """Weights of one kind, summed up."""

    name: str
    formats: list[str]
    weights: int
    parameters: int
    bytes: int
    bits_per_weight: float


class Inspect(TypedDict):
    """A bundle: its identity, whether its hashes were compared, its weights by group, its manifest."""

    path: str
    identity: str
    bytes: int
    signed_by: str | None
    verified: Literal["size", "sha256"]
    groups: list[WeightGroup]
    manifest: Manifest


class LaidOut(TypedDict):
    """A layout and the files it consists of."""

    path: str
    layout: str
    files: list[str]


class PulledBundle(TypedDict):
    """A bundle that was brought from the Hub."""

    path: str
    repository: str
    identity: str


class Family(TypedDict):
    """A model family: the files it is read from, and what the tests show of it."""

    model_type: str
    level: str
    forms: list[str]
    gguf: list[str]
    inside: list[str]
    logits_equal: list[str]
    gguf_equal: list[str]
    answered: list[str]


class Pulled(TypedDict):
    """Where a built-in model lies."""

    name: str
    path: str


class Found(TypedDict):
    """Where a model lies: the built-in one and the bundles that were made of it."""

    name: str
    paths: list[str]


class Removed(TypedDict):
    """What was removed."""

    name: str
    removed: list[str]


class Example(TypedDict):
    """A prompt as the model's template is given it, with its right answers."""

    id: str
    messages: list[Message]
    golds: list[str]
    extract: str


class SuiteCheck(TypedDict):
    """What a suite holds, and which of its answers would not be recognized."""

    name: str
    format: str
    records: int
    prompts: int
    variants: int
    scored: int
    golds: int
    rules: dict[str, int]
    types: dict[str, int]
    tags: int
    left_out: list[str]
    long_texts: list[str]
    sha256: str
    unread: list[Unread]
    example: Example
    warnings: list[str]
    rendered: str


class SuitePrompt(TypedDict):
    """A prompt as the toolkit's own suite format has it; ``checks`` have the parameters of their kind."""

    id: str
    messages: list[Message]
    extract: str
    answer: NotRequired[str | list[str]]
    choices: NotRequired[list[str]]
    tags: NotRequired[list[str]]
    tests: NotRequired[Any]
    tolerance: NotRequired[Any]
    variant: NotRequired[str]
    variant_of: NotRequired[str]
    checks: NotRequired[list[dict[str, Any]]]


class Validated(TypedDict):
    """A profile as it was given, and its name or its error."""

    profile: str
    valid: bool
    name: NotRequired[str]
    error: NotRequired[str]


class ProfileFit(TypedDict):
    """Whether a profile fits this machine, and why."""

    profile: str
    fits: bool
    reasons: list[str]


class Detected(TypedDict):
    """This machine, the profile that fits it best (null: none), and all profiles, best first."""

    hardware: Hardware
    profile: str | None
    ranking: list[ProfileFit]


class Served(TypedDict):
    """Where a server listens, and for what; ``key``: whether clients have to send one."""

    url: str
    host: str
    port: int
    model: str
    identity: str
    places: int
    context_length: int
    key: bool


class Signed(TypedDict):
    """What was signed, and the public key that was made; null: neither."""

    bundle: str | None
    identity: str | None
    public_key: str | None


class SuiteName(TypedDict):
    """A suite of prompts by name and content."""

    name: str
    sha256: str


class Baseline(TypedDict):
    """A baseline without its samples."""

    created: str
    suite: SuiteName
    settings: DrawSettings
    model: ModelIdentity
    versions: dict[str, str]
    prompts: int
    samples: int
    tokens: int
    scored_samples: int
    sha256: str


class Metric(TypedDict):
    """A metric of two reports, as text."""

    metric: str
    first: str
    second: str


class Move(TypedDict):
    """A prompt whose majority answer differs between two reports."""

    prompt: str
    first: str | None
    second: str | None
    first_share: float
    second_share: float


class ReportDifference(TypedDict):
    """Two reports side by side."""

    bundles: list[str]
    outcomes: list[str]
    warnings: list[str]
    metrics: list[Metric]
    common_prompts: int
    moved: list[Move]


OUTPUTS: dict[str, Any] = {
    "export": Export,
    "plan": Plan,
    "compare": Compare,
    "tune": Tune,
    "run": Run | RunTrajectories,
    "chat": Chat,
    "serve": Served,
    "bench": Annotated[BenchResult, Plus(prefill=list["Rates"], decode="Rates")],
    "selftest": Annotated[SelfTestResult, Plus(passed=bool)],
    "inspect": Inspect,
    "sign": Signed,
    "layout": LaidOut,
    "push": Pushed,
    "pull": PulledBundle,
    "families": list[Family],
    "models list": list[CatalogEntry],
    "models pull": Pulled,
    "models where": Found,
    "models remove": Removed,
    "suite check": SuiteCheck,
    "suite show": list[SuitePrompt],
    "profiles list": list[ProfileEntry],
    "profiles show": dict[str, Any],
    "profiles validate": list[Validated],
    "profiles detect": Detected,
    "baseline create": Baseline,
    "baseline show": Baseline,
    "report FIRST SECOND": ReportDifference,
}
"""The type that each command prints; ``verify``, ``audit`` and ``report`` of one file print a report."""

REPORTS = ("verify", "audit", "report")
Rates = Annotated[Rate, Plus(median=float, min=float, max=float)]

_NAMES: dict[str, Any] = {
    **{kind.__name__: kind for kind in (FileEntry, KVCacheInfo, ModelInfo, WeightEntry, WeightFormat, Tally, Rate)},
    **{"Path": Path, "VoteRule": VoteRule, "Kind": Kind, "Numerics": Numerics, "Rates": Rates},
}


def schema(command: str) -> dict[str, Any]:
    """The JSON schema of what ``edgedistill COMMAND --json`` prints; KeyError for a command without ``--json``."""
    if command in REPORTS:
        return report_schema()
    name = command.lower().replace(" ", "-")
    return json_schema(
        OUTPUTS[command],
        _NAMES,
        title=f"edgedistill {command} --json",
        identifier=f"urn:edgedistill:{name}:{__version__}",
    )
