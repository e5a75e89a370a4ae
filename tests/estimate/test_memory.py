from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedistill.architecture.spec import LayerSpec, LogicalWeight, ModelSpec, RopeSpec
from edgedistill.errors import BudgetError
from edgedistill.estimate.limits import GB, alternatives, check, check_machine, fits
from edgedistill.estimate.memory import MAPPED_BY_ONE_READ, predict, predict_profile
from edgedistill.profile.profile import list_profiles, load_profile
from edgedistill.quantize.plan import parse_format, plan_weights


@pytest.fixture(autouse=True)
def no_user_profiles(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def model(
    vocab: int, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, head_dim: int, tied: bool = True
) -> tuple[ModelSpec, list[LogicalWeight]]:
    spec = ModelSpec(
        family="qwen3",
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        vocab_size=vocab,
        max_position_embeddings=40960,
        rms_norm_eps=1e-6,
        activation="silu",
        tie_word_embeddings=tied,
        attention_scale=head_dim**-0.5,
        layers=tuple(LayerSpec(i, RopeSpec((1.0,) * (head_dim // 2))) for i in range(layers)),
    )
    weights = [LogicalWeight("embed", "embedding", (vocab, hidden), (), aliases=("lm_head",) if tied else ())]
    if not tied:
        weights.append(LogicalWeight("lm_head", "linear", (vocab, hidden), ()))
    for i in range(layers):
        shapes = {
            "attn.qkv": ((heads + 2 * kv_heads) * head_dim, hidden),
            "attn.o": (hidden, heads * head_dim),
            "mlp.gate": (inner, hidden),
            "mlp.up": (inner, hidden),
            "mlp.down": (hidden, inner),
        }
        weights += [LogicalWeight(f"layers.{i}.{name}", "linear", shape, ()) for name, shape in shapes.items()]
        weights.append(LogicalWeight(f"layers.{i}.input_norm", "norm", (hidden,), ()))
    return spec, weights


SMALL = model(49152, 576, 1536, 30, 9, 3, 64)
QWEN_06 = model(151936, 1024, 3072, 28, 16, 8, 128)
QWEN_4 = model(151936, 2560, 9728, 36, 32, 8, 128)
QWEN_8 = model(151936, 4096, 12288, 36, 32, 8, 128, tied=False)
QWEN_32 = model(151936, 5120, 25600, 64, 64, 8, 128, tied=False)


def test_parts_add_up_and_mean_what_they_say() -> None:
    spec, weights = SMALL
    plan = plan_weights(weights, parse_format("int4-b32-asym"))
    budget = predict(spec, plan, context_length=1000, prefill_chunk=100)
    assert budget.kv_bytes == 1000 * 2 * 30 * 3 * 64 * 4
    assert plan.nbytes < budget.file_bytes < plan.nbytes * 1.1
    codes = sum(array.nbytes for weight in plan.weights for array in weight.arrays if array.name.endswith(".q"))
    stored = sum(array.nbytes for weight in plan.weights for array in weight.arrays if array.name.endswith(".scales"))
    scales = 2 * stored  # float16 in the file, float32 in memory
    norms = 30 * 576 * 4
    tables = 2 * 1000 * 32 * 4  # cos and sin, float32, half a head wide
    embedding = 4 * 49152 * 576 // 32  # its scales are read with its rows; those of products are not read again
    assert budget.weights_private == codes + 2 * scales + embedding + norms + tables
    assert budget.weights_opening == scales - embedding
    assert budget.activation_bytes >= 9 * 100 * 1000 * 4
    table = budget.to_dict()
    assert budget.weights_reclaimable == spec_codes(plan, "embed")
    parts = (
        "weights_private",
        "weights_mapped",
        "weights_reclaimable",
        "kv_bytes",
        "activation_bytes",
        "logits_bytes",
        "base_bytes",
    )
    assert table["ram_bytes"] == sum(table[part] for part in parts)


def spec_codes(plan, name):
    weight = next(weight for weight in plan.weights if weight.weight_name == name)
    return sum(array.nbytes for array in weight.arrays if array.name.endswith(".q"))


def test_the_embedding_s_mapped_rows_count_as_memory_but_not_against_a_limit() -> None:
    spec, weights = SMALL
    plan = plan_weights(weights, parse_format("int8"))
    short, long = (predict(spec, plan, context_length=length) for length in (4, 4096))
    assert short.weights_reclaimable == 4 * MAPPED_BY_ONE_READ
    assert long.weights_reclaimable == spec_codes(plan, "embed")
    assert long.ram_bytes - long.needed_bytes == long.weights_reclaimable


def test_an_untied_embedding_is_not_copied() -> None:
    spec, weights = QWEN_8
    fmt = parse_format("int8")
    untied = predict(spec, plan_weights(weights, fmt), context_length=64)
    body = [weight for weight in weights if weight.name != "embed"]
    assert untied.weights_private == predict(spec, plan_weights(body, fmt), context_length=64).weights_private


@given(st.integers(16, 10_000), st.integers(1, 10_000))
def test_longer_contexts_never_need_less(length, more) -> None:
    spec, weights = SMALL
    plan = plan_weights(weights, parse_format("int4"))
    shorter = predict(spec, plan, context_length=length)
    longer = predict(spec, plan, context_length=length + more)
    assert longer.ram_bytes > shorter.ram_bytes
    assert longer.file_bytes >= shorter.file_bytes


@pytest.mark.parametrize("spec_and_weights", [SMALL, QWEN_06, QWEN_4], ids=["135M", "0.6B", "4B"])
def test_the_default_profile_takes_models_up_to_4b(spec_and_weights: tuple[ModelSpec, list[LogicalWeight]]) -> None:
    profile = load_profile("laptop-cpu")
    budget = check(*spec_and_weights, profile)
    assert fits(budget, profile)
    assert budget == predict_profile(*spec_and_weights, profile)


def advised(error):
    """The advice of a BudgetError, as ``with_overrides`` arguments or the name of another profile."""
    for option in error.hint.removeprefix("What would fit: ").removesuffix(".").split("; "):
        words = option.split(":")[0].split()
        arguments: dict[str, Any] = {}
        name = None
        for flag, value in zip(words[::2], words[1::2], strict=False):
            match flag:
                case "--context":
                    arguments["context_length"] = int(value)
                case "--block-size":
                    arguments["block_size"] = int(value)
                case "--format":
                    arguments["weight_format"] = parse_format(value)
                case "--kv-cache":
                    arguments["kv_cache"] = value
                case "--profile":
                    name = value
        yield option, arguments, name


@pytest.mark.parametrize(
    ("spec_and_weights", "name", "kinds"),
    [
        (QWEN_8, "laptop-cpu", {"--context", "--profile"}),
        (QWEN_4, "laptop-cpu-int8", {"--format", "--profile"}),
        (QWEN_4, "low-spec-laptop", {"--profile"}),
        (QWEN_32, "mini-pc", {"--profile"}),
        (QWEN_8, "reference-fp32", {"--format"}),
        (QWEN_06, "low-spec-laptop", set()),
    ],
)
def test_what_a_refusal_recommends_does_fit(
    spec_and_weights: tuple[ModelSpec, list[LogicalWeight]], name, kinds
) -> None:
    everything = [load_profile(entry.name) for entry in list_profiles()]
    profile = load_profile(name)
    if not kinds:
        assert fits(check(*spec_and_weights, profile, others=everything), profile)
        return
    with pytest.raises(BudgetError) as caught:
        check(*spec_and_weights, profile, others=everything)
    text = str(caught.value)
    assert f"profile {name} allows" in text
    assert "\n" not in text
    found = set()
    for option, arguments, other in advised(caught.value):
        changed = load_profile(other) if other else profile.with_overrides(**arguments)
        assert fits(predict_profile(*spec_and_weights, changed), changed), option
        found |= {word for word in option.split(":")[0].split() if word.startswith("--")}
    assert kinds <= found


def test_a_long_context_is_offered_keys_and_values_in_8_bits() -> None:
    profile = load_profile("laptop-cpu").with_overrides(context_length=16384)
    with pytest.raises(BudgetError, match=r"4\.83 GB of it KV cache") as caught:
        check(*QWEN_4, profile)
    found = {option.split(":")[0]: arguments for option, arguments, _ in advised(caught.value)}
    assert found["--kv-cache int8"] == {"kv_cache": "int8"}
    changed = profile.with_overrides(kv_cache="int8")
    assert fits(check(*QWEN_4, changed), changed)
    longer = load_profile("laptop-cpu").with_overrides(context_length=65536, kv_cache="int8")
    with pytest.raises(BudgetError) as caught:
        check(*QWEN_4, longer)
    assert "--kv-cache" not in (caught.value.hint or ""), "it has them already"


def test_other_profiles_come_smallest_first_and_for_the_same_processors() -> None:
    everything = [load_profile(entry.name) for entry in reversed(list_profiles())]
    found = alternatives(*QWEN_8, load_profile("laptop-cpu"), everything)
    names = [entry.option.split()[1] for entry in found if entry.option.startswith("--profile")]
    assert names == ["mini-pc", "server-cpu"]
    found = alternatives(*QWEN_8, load_profile("raspberry-pi-5"), everything)
    names = [entry.option.split()[1] for entry in found if entry.option.startswith("--profile")]
    assert names == ["arm-cpu-16gb", "arm-server"], "a Mac's profile is no advice for a Raspberry Pi"


def test_too_much_on_disk_is_told_apart_from_too_much_memory() -> None:
    profile = load_profile("laptop-cpu")
    tight = replace(profile, target=replace(profile.target, disk_gb=1.0, ram_gb=8.0))
    with pytest.raises(BudgetError, match=r"2\.\d+ GB on disk \(profile laptop-cpu allows 1\.00 GB\)\.") as caught:
        check(*QWEN_4, tight)
    assert "of memory at" not in caught.value.message


def test_nothing_fits() -> None:
    with pytest.raises(BudgetError, match="choose a smaller model"):
        check(*QWEN_32, load_profile("low-spec-laptop"))


def test_this_machine_must_hold_the_bundle_and_open_it() -> None:
    budget = predict_profile(*QWEN_4, load_profile("laptop-cpu"))
    check_machine(budget, free_disk=10 * GB)
    check_machine(budget, free_disk=10 * GB, available_ram=6 * GB)
    with pytest.raises(BudgetError, match=r"needs 2\.\d+ GB of disk; 1\.00 GB are free .*Free 1\.\d+ GB"):
        check_machine(budget, free_disk=GB)
    with pytest.raises(BudgetError, match=r"Opening the bundle .* 2\.00 GB are available.*--no-check"):
        check_machine(budget, free_disk=10 * GB, available_ram=2 * GB)


@pytest.mark.parametrize("weight_format", ["int3", "int5", "int6"])
def test_opening_holds_widened_codes_beside_their_packed_copies(weight_format) -> None:
    spec, weights = QWEN_06
    plan = plan_weights(weights, parse_format(weight_format))
    short, long = (predict(spec, plan, context_length=length) for length in (64, 4096))
    bits = parse_format(weight_format).kernel_bits
    elements = sum(w.shape[0] * w.shape[1] for w in plan.weights if len(w.shape) == 2 and w.weight_name != "embed")
    scales = 4 * elements // 32
    assert short.weights_opening == long.weights_opening == elements * bits // 8 + scales
    assert short.needed_bytes == short.opening_bytes > long.opening_bytes - long.weights_opening
    assert long.needed_bytes == long.opening_bytes - long.weights_opening + long.kv_bytes + long.activation_bytes
    as_kernels_take_them = plan_weights(weights, parse_format("int8-b32-s32"))
    assert predict(spec, as_kernels_take_them, context_length=64).weights_opening == 0


def test_an_untied_embedding_in_planes_is_in_memory_once() -> None:
    spec, weights = QWEN_8
    body = [weight for weight in weights if weight.name != "embed"]
    fmt = parse_format("int6-b32-sym")
    whole, rest = (predict(spec, plan_weights(some, fmt), context_length=64) for some in (weights, body))
    blocks = 151936 * 4096 // 32
    assert whole.weights_private - rest.weights_private == 151936 * 4096 + 4 * blocks
    assert whole.weights_opening == rest.weights_opening


def test_a_limit_that_opening_alone_exceeds_is_said_to_be_that() -> None:
    profile = load_profile("laptop-cpu").with_overrides(weight_format=parse_format("int6"), context_length=512)
    with pytest.raises(
        BudgetError, match=r"9\.\d\d GB of memory while it opens, in which codes and scales are w"
    ) as caught:
        check(*QWEN_4, profile)
    assert "--format int4" in str(caught.value.hint)
