"""Bundles with a second form of the layers: which graph computes what over one cache."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from exporting import export

from edgedistill.bundle.bundle import MODEL, PREFILL_MODEL
from edgedistill.profile.profile import Profile, load_profile
from edgedistill.quantize.plan import parse_format
from edgedistill.runtime.measure.selftest import selftest
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.session import DecoderSession

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = np.random.default_rng(4).integers(3, 250, 60).tolist()


@pytest.fixture(scope="module")
def models(tiny_checkpoint_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """The same model as int4 alone, as W8A8 layers alone (with the int4 bundle's embedding), and as both."""
    root = tmp_path_factory.mktemp("forms")
    export(tiny_checkpoint_dir, root / "int4", format="int4-b32", check=False)
    rules = [{"match": "layers.*", "format": "w8a8"}]
    table = load_profile("laptop-cpu").to_dict()
    table["weights"] |= {"default": "int4-b32", "rules": rules}
    export(tiny_checkpoint_dir, root / "w8a8", profile=Profile.from_dict(table), check=False)
    export(tiny_checkpoint_dir, root / "both", format="int4-b32", prefill="w8a8")
    return {name: open_bundle(root / name) for name in ("int4", "w8a8", "both")}


def prefilled(model: Model) -> Any:
    decoder: Any = model.session.decoder()
    decoder.feed(TOKENS, exact=True)
    return decoder


def test_prefill_and_scoring_are_those_of_the_second_form(models: dict[str, Model]) -> None:
    np.testing.assert_array_equal(models["both"].score(TOKENS), models["w8a8"].score(TOKENS))
    assert (models["both"].score(TOKENS) != models["int4"].score(TOKENS)).any()


def test_single_tokens_are_those_of_the_first_form_over_the_same_cache(models: dict[str, Model]) -> None:
    """A one-token step with the cache that the other form filled: what int4 computes from those very entries."""
    both, other = prefilled(models["both"]), prefilled(models["w8a8"])
    plain: Any = models["int4"].session.decoder()
    plain.cache.put_row(0, other.cache, 0, len(TOKENS))
    for token in (7, 9, 11):
        expected = plain.feed([token]).copy()
        np.testing.assert_array_equal(both.feed([token]), expected)
        assert (expected != other.feed([token])).any()


def test_exact_steps_stay_with_the_form_that_prefills(models: dict[str, Model]) -> None:
    both, other = prefilled(models["both"]), prefilled(models["w8a8"])
    np.testing.assert_array_equal(both.feed([7], exact=True), other.feed([7], exact=True))
    assert selftest(models["both"].bundle.path).passed


def test_batches_decode_as_single_sequences_do(models: dict[str, Model]) -> None:
    both, plain = prefilled(models["both"]).select([0, 0]), cast(DecoderSession, models["int4"].session).decoder(2)
    for row in (0, 1):
        plain.cache.put_row(row, both.cache, row, len(TOKENS))
    step = np.array([[7], [9]])
    np.testing.assert_array_equal(both.step(step).copy(), plain.step(step))


def test_files_plan_and_budget_know_both_forms(models: dict[str, Model]) -> None:
    both, plain = models["both"].bundle, models["int4"].bundle
    assert both.has_file(PREFILL_MODEL)
    assert not plain.has_file(PREFILL_MODEL)
    assert both.manifest.parameters == plain.manifest.parameters
    assert both.manifest.bits_per_weight > plain.manifest.bits_per_weight + 4
    assert both.manifest.predicted["weights_private"] > plain.manifest.predicted["weights_private"]
    formats = {w.name: w.format.label() for w in both.manifest.weights}
    assert formats["prefill.layers.0.mlp.down"] == "w8a8-asym-search"
    assert formats["layers.0.mlp.down"].startswith("int4-b32")
    assert "prefill.embed" not in formats
    assert (both.path / MODEL).is_file()


def test_the_choice_survives_profiles_and_overrides() -> None:
    table = load_profile("laptop-cpu").to_dict()
    table["weights"]["prefill"] = "w8a8"
    profile = Profile.from_dict(table)
    assert profile.weights.prefill == parse_format("w8a8")
    assert Profile.from_dict(profile.to_dict()) == profile
    assert profile.with_overrides(context_length=64).weights.prefill == parse_format("w8a8")
    assert profile.with_overrides(block_size=64).weights.all_rules[0].match == "prefill.*"
