"""Named qualities: recipes of formats, fitted to what a profile's kernels want."""

from __future__ import annotations

from pathlib import Path

import pytest
from exporting import export

from edgedistill.errors import UsageError
from edgedistill.profile.profile import load_profile
from edgedistill.profile.quality import QUALITIES, RECIPES, with_quality
from edgedistill.quantize.plan import parse_format


def test_balanced_is_what_the_default_profile_has() -> None:
    profile = load_profile("laptop-cpu")
    assert with_quality(profile, "balanced").weights == profile.weights


def test_recipes_are_formats() -> None:
    assert tuple(RECIPES) == QUALITIES
    for recipe in RECIPES.values():
        for label in (recipe.default, *(label for _, label in recipe.rules)):
            assert parse_format(label).label() == label


@pytest.mark.parametrize(("profile", "block", "symmetric"), [("arm-cpu", 32, True), ("low-spec-laptop", 64, False)])
def test_kernels_keep_their_block_and_zero_points(profile: str, block: int, symmetric: bool) -> None:
    for name in QUALITIES:
        formats = with_quality(load_profile(profile), name).weights.formats
        assert {fmt.block_size for fmt in formats if fmt.bits == 4} <= {block}
        assert min(fmt.block_size for fmt in formats) == block
        assert all(fmt.symmetric == (symmetric or fmt.bits == 8) for fmt in formats)


def test_profiles_of_eight_bits_have_smaller_qualities_too() -> None:
    profile = load_profile("server-cpu")
    assert with_quality(profile, "small").weights.default.bits == 4
    assert with_quality(profile, "high").weights.default.bits == 8


def test_small_keeps_the_embedding_and_the_output_matrix_in_eight_bits() -> None:
    weights = with_quality(load_profile("laptop-cpu"), "small").weights
    assert weights.default.bits == 4
    assert {rule.match: rule.format.bits for rule in weights.rules} == {"lm_head": 8, "embed": 8}


def test_an_unknown_one_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="small, balanced, high"):
        with_quality(load_profile("laptop-cpu"), "best")


def test_more_quality_is_more_bytes(tmp_path: Path) -> None:
    bits = [
        export("tiny-reasoner", tmp_path / name, quality=name, check=False).manifest.bits_per_weight
        for name in QUALITIES
    ]
    assert bits == sorted(bits)
    assert bits[0] < bits[1] < bits[2]


def test_a_quality_excludes_a_format(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="each chooses all formats"):
        export("tiny-reasoner", tmp_path / "out", quality="small", format="int4")
    with pytest.raises(UsageError, match="each chooses all formats"):
        export("tiny-reasoner", tmp_path / "out", quality="small", bits_per_weight=5.0)
