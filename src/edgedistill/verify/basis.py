"""What a verdict is based on: the margins that hold for a bundle, and the prompts that count."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgedistill.verify.gate.endpoints import Margins
from edgedistill.verify.models.endpoint import EndpointModel
from edgedistill.verify.options import resolve_margins, wider_margins
from edgedistill.verify.population import distinct
from edgedistill.verify.suites.registry import require_gold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.verify.models.bundle import BundleModel
    from edgedistill.verify.options import VerifyOptions
    from edgedistill.verify.types import Prompt, Suite


class Basis(NamedTuple):
    """Margins and prompts of a verdict, and sentences for the user about them."""

    margins: Margins
    prompts: list[Prompt]
    notes: list[str]


def basis_of(
    bundle: BundleModel | EndpointModel, suite: Suite, prompts: Sequence[Prompt], options: VerifyOptions
) -> Basis:
    """The margins for ``bundle``, and those of ``prompts`` that count.

    Raises:
        UsageError: A margin in the options has an unknown name or is out of range.
        SuiteError: A margin in the options does not apply to the suite.
        VerifyError: Fewer than 2 different prompts for a verdict about prompts like these.
    """
    margins = resolve_margins(bundle_margins(bundle), options.margins)
    if "accuracy" in options.margins:
        require_gold(suite, "the margin `accuracy`")
    kept, copies = distinct(prompts, options.about)
    return Basis(margins, kept, [*wider_margins(margins, options.margins), *copies])


def bundle_margins(bundle: BundleModel | EndpointModel) -> Margins:
    """The margins of the profile that the bundle was made for; the default ones for a server."""
    if isinstance(bundle, EndpointModel):
        return Margins()
    table = bundle.model.bundle.manifest.profile.get("verify", {})
    known = {name: float(value) for name, value in table.items() if name in Margins.__dataclass_fields__}
    return Margins(**known)
