"""Bundles as an earlier version wrote them, and sessions that compute the same bits."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from edgedistill.bundle.bundle import WIDENED, WIDENED_MODELS

if TYPE_CHECKING:
    from pathlib import Path

    from edgedistill.runtime.session import DecoderSession


def as_made_before(bundle: Path, out: Path) -> Path:
    """The bundle as an earlier version wrote it: graphs that put matrices together by themselves, and no others."""
    shutil.copytree(bundle, out)
    added = {WIDENED, *WIDENED_MODELS.values()}
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["files"] = [entry for entry in manifest["files"] if entry["name"] not in added]
    manifest["predicted"].pop("weights_opening", None)
    (out / "manifest.json").write_text(json.dumps(manifest))
    for name in added:
        (out / name).unlink(missing_ok=True)
    return out


def logits(session: DecoderSession) -> list[Any]:
    """Of a prefill, of single steps and of a batch."""
    tokens = np.random.default_rng(1).integers(3, 250, 40).tolist()
    one = session.decoder()
    found = [one.feed(tokens).copy(), *(one.feed([token]).copy() for token in (7, 9, 11))]
    return [*found, one.feed([5, 6], exact=True).copy()]


def assert_equal(first: DecoderSession, second: DecoderSession) -> None:
    for ours, theirs in zip(logits(first), logits(second), strict=True):
        np.testing.assert_array_equal(ours, theirs)
