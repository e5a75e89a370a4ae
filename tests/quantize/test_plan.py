from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.architecture.spec import LogicalWeight
from edgedistill.errors import UsageError
from edgedistill.quantize.plan import Rule, override, parse_format, plan_weights
from edgedistill.quantize.spec import BLOCK_SIZES, FLOAT32, WeightFormat

INT4, INT8 = WeightFormat(4, 32), WeightFormat(8, 64, True)
WEIGHTS = (
    LogicalWeight("embed", "embedding", (100, 64), (), aliases=("lm_head",)),
    LogicalWeight("layers.0.attn.qkv", "linear", (192, 64), ()),
    LogicalWeight("layers.0.mlp.down", "linear", (64, 100), ()),
    LogicalWeight("layers.10.mlp.down", "linear", (64, 100), ()),
    LogicalWeight("layers.0.input_norm", "norm", (64,), ()),
    LogicalWeight("layers.0.attn.qkv.bias", "bias", (192,), ()),
)

formats = st.one_of(
    st.just(FLOAT32),
    st.builds(
        WeightFormat,
        st.sampled_from([2, 3, 4, 5, 6, 8]),
        st.sampled_from(BLOCK_SIZES),
        st.booleans(),
        st.sampled_from(["rtn", "search", "gptq"]),
        st.sampled_from([0, 1, 4]),
        st.sampled_from([8, 16, 32]),
    ),
)


def planned(*rules, default=INT4):
    plan = plan_weights(WEIGHTS, default, rules)
    return {name: weight.format.label() for name, weight in plan.by_name().items()}, plan


def test_first_match_wins_and_vectors_stay_float() -> None:
    got, plan = planned(Rule("layers.0.*", INT8), Rule("*.mlp.down", FLOAT32))
    assert got == {
        "embed": "int4-b32-asym-search",
        "layers.0.attn.qkv": "int8-b64-sym-search",
        "layers.0.mlp.down": "int8-b64-sym-search",
        "layers.10.mlp.down": "fp32",
        "layers.0.input_norm": "fp32",
        "layers.0.attn.qkv.bias": "fp32",
    }
    assert plan.unused_rules == ()


def test_aliases_count() -> None:
    got, _ = planned(Rule("lm_head", INT8))
    assert got["embed"] == "int8-b64-sym-search"


def test_rules_that_match_nothing_are_reported() -> None:
    rules = (Rule("lm_head", INT8), Rule("LM_HEAD", INT8), Rule("*norm", INT8), Rule("layers.1.*", INT8))
    _, plan = planned(*rules, Rule("embed", FLOAT32))
    assert plan.unused_rules == rules[1:]
    assert plan.by_name()["embed"].format == INT8


def test_sizes() -> None:
    _, plan = planned()
    down = plan.by_name()["layers.0.mlp.down"]
    # 100 columns make 4 blocks of 32: 64 bytes of codes, 8 of scales, 2 of zero points a row.
    assert down.nbytes == 64 * (4 * 16 + 4 * 2 + 2)
    assert down.parameters == 6400
    assert [array.name for array in down.arrays] == [
        f"layers.0.mlp.down.{part}" for part in ("q", "scales", "zero_points")
    ]
    assert plan.nbytes == sum(weight.nbytes for weight in plan.weights)
    assert plan.bits_per_weight == 8 * plan.nbytes / plan.parameters
    assert plan_weights((), INT4).bits_per_weight == 0


@given(formats)
def test_labels_are_read_back(fmt) -> None:
    assert parse_format(fmt.label()) == fmt


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("int4", INT4),
        ("INT4 ", INT4),
        ("int8", INT8),
        ("float32", FLOAT32),
        ("int4-sym-b128", WeightFormat(4, 128, True)),
        ("int8-rtn", WeightFormat(8, 64, True, "rtn")),
        ("int4-acc1", WeightFormat(4, 32, accuracy_level=1)),
        ("int6-gptq-s8", WeightFormat(6, 32, True, "gptq", scale_bits=8)),
    ],
)
def test_short_forms(text, expected) -> None:
    assert parse_format(text) == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("int7", "`int7`"),
        ("", "``"),
        ("fp32-b32", "`b32`"),
        ("int4-b33", "nearest is 32"),
        ("int4-b", "`b`"),
        ("int4-b32-b64", "`b64` beside another"),
        ("int4-sym-asym", "`asym` beside another"),
        ("int4-awq", "`awq`"),
        ("int4-s4", "`s4`"),
        ("int4-acc2", "`acc2`"),
        ("4bit", "`4bit`"),
    ],
)
def test_bad_formats_name_the_part(text, named) -> None:
    with pytest.raises(UsageError) as caught:
        parse_format(text)
    assert named in str(caught.value)
    assert "expected" in str(caught.value)


def test_a_format_on_the_command_line_replaces_every_rule() -> None:
    assert override(INT4, (Rule("*", FLOAT32),), weight_format=INT8) == (INT8, ())


def test_a_block_size_reaches_every_quantized_format() -> None:
    default, rules = override(INT4, (Rule("a", INT8), Rule("b", FLOAT32)), block_size=128)
    assert default == WeightFormat(4, 128)
    assert [rule.format for rule in rules] == [WeightFormat(8, 128, True), FLOAT32]


@pytest.mark.parametrize("size", [0, 8, 33, 512])
def test_bad_block_sizes(size) -> None:
    with pytest.raises(UsageError, match="expected one of 16, 32, 64, 128, 256"):
        override(INT4, (), block_size=size)


def test_a_block_size_without_effect_is_refused() -> None:
    with pytest.raises(UsageError, match="no effect"):
        override(FLOAT32, (), block_size=32)
