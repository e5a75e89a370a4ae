"""What every command prints with ``--json``: a type for each, from which the published schemas are derived.

``schema("plan")`` is the JSON schema of ``edgedistill plan --json``. The reference page and the ``.schema.json`` files
of the documentation are made from it, and a test runs every command and validates what it prints. Commands do not
import this module.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from edgedistill._version import __version__
from edgedistill.architecture.levels import FamilyLevel
from edgedistill.bundle.manifest import FileEntry, KVCacheInfo, Manifest, ModelInfo, WeightEntry
from edgedistill.catalog.builtin import CatalogEntry
from edgedistill.comparison.quality import Quality
from edgedistill.comparison.result import Row
from edgedistill.estimate.memory import Budget
from edgedistill.estimate.speed import Speed
from edgedistill.estimate.timings import Machine
from edgedistill.json_codec import Plus, json_schema
from edgedistill.planning.planner import PlanReport
from edgedistill.profile.profile import ProfileEntry
from edgedistill.quantize.spec import WeightFormat
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.runtime.events import Generation
from edgedistill.runtime.generate import FinishReason
from edgedistill.runtime.logprobs import TokenLogprob
from edgedistill.runtime.measure.bench import BenchResult
from edgedistill.runtime.measure.selftest import SelfTestResult
from edgedistill.runtime.settings import Numerics
from edgedistill.runtime.stats import GenerationStats, Spread
from edgedistill.runtime.tools.types import ToolCall
from edgedistill.system.hardware import Hardware
from edgedistill.trajectories.options import VoteRule
from edgedistill.trajectories.result import TrajectoryResult
from edgedistill.trajectories.vote import Kind, VoteResult
from edgedistill.tune.options import TuneResult
from edgedistill.verify.report.diff import ReportDiff
from edgedistill.verify.report.json_schema import report_schema
from edgedistill.verify.sampling.suite_check import SuiteCheck
from edgedistill.verify.types import Message, ModelIdentity, Prompt
from edgedistill.workflow.publish import Pushed

Asked: Any = Plus(bundle=str, prompt=str)
Answered: Any = Plus(bundle=str, prompt=str, steps=list[dict[str, Any]])
"""``steps``: the messages before the reply, calls of tools and their results."""
CompareRow = Annotated[Row, Plus(pareto=bool, dominated_by=list[str])]
"""``pareto``: no other row has as small a file and as little divergence; ``dominated_by``: those that have as little
private memory and divergence."""


class KeptWeights(TypedDict):
    """Packed weights on disk (EDGEDISTILL_PACKED_CACHE)."""

    directory: str
    entries: int
    bytes: int


class KeptPrompts(TypedDict):
    """The prompt cache on disk, and packed weights; of ``clear``, what was deleted."""

    directory: str
    files: int
    bytes: int
    packed: KeptWeights


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
    distance: dict[str, Any]


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
    steps: NotRequired[list[dict[str, Any]]]


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


class Pulled(TypedDict):
    """The path of a built-in model."""

    name: str
    path: str


class Found(TypedDict):
    """The paths of a model: the built-in one and the bundles that were made of it."""

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


OUTPUTS: dict[str, Any] = {
    "export": Export,
    "plan": PlanReport,
    "compare": Compare,
    "tune": TuneResult,
    "run": Annotated[Generation, Answered] | Annotated[TrajectoryResult, Asked],
    "chat": Chat,
    "serve": Served,
    "bench": BenchResult,
    "selftest": SelfTestResult,
    "inspect": Inspect,
    "sign": Signed,
    "layout": LaidOut,
    "push": Pushed,
    "pull": PulledBundle,
    "families": list[FamilyLevel],
    "cache show": KeptPrompts,
    "cache clear": KeptPrompts,
    "models list": list[CatalogEntry],
    "models pull": Pulled,
    "models where": Found,
    "models remove": Removed,
    "suite check": Annotated[SuiteCheck, Plus(example=Example, warnings=list[str], rendered=str)],
    "suite show": list[SuitePrompt],
    "profiles list": list[ProfileEntry],
    "profiles show": dict[str, Any],
    "profiles validate": list[Validated],
    "profiles detect": Detected,
    "baseline create": Baseline,
    "baseline show": Baseline,
    "report FIRST SECOND": ReportDiff,
}
"""The type that each command prints; ``verify``, ``audit`` and ``report`` of one file print a report."""

REPORTS = ("verify", "audit", "report")

_CLASSES = (
    Budget, FileEntry, Generation, GenerationStats, KVCacheInfo, Machine, Manifest, ModelInfo, Path, Prompt, Quality,
    Speed, Spread, TokenLogprob, ToolCall, VoteResult, WeightEntry, WeightFormat,
)  # fmt: skip
_NAMES: dict[str, Any] = {kind.__name__: kind for kind in _CLASSES} | {
    "FinishReason": FinishReason, "Kind": Kind, "Numerics": Numerics, "VoteRule": VoteRule,
}  # fmt: skip


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
