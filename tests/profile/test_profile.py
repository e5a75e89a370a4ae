from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgedistill.errors import ProfileError, UsageError
from edgedistill.profile.profile import (
    DEFAULT_PROFILE,
    ISA_FLAGS,
    Context,
    GenerationDefaults,
    Profile,
    Session,
    Target,
    VerifyMargins,
    Weights,
    list_profiles,
    load_profile,
)
from edgedistill.quantize.plan import Rule
from edgedistill.quantize.spec import BLOCK_SIZES, FLOAT32, WeightFormat

SHIPPED = (
    "apple-silicon",
    "apple-silicon-16gb",
    "arm-cpu",
    "arm-cpu-16gb",
    "arm-cpu-4gb",
    "arm-server",
    "jetson-orin",
    "laptop-cpu",
    "laptop-cpu-int8",
    "low-spec-laptop",
    "mini-pc",
    "raspberry-pi-5",
    "raspberry-pi-5-4gb",
    "reference-fp32",
    "server-cpu",
)

share = st.floats(0, 1, allow_nan=False)
formats = st.one_of(
    st.just(FLOAT32),
    st.builds(
        WeightFormat,
        st.sampled_from([2, 4, 8]),
        st.sampled_from(BLOCK_SIZES),
        st.booleans(),
        st.sampled_from(["rtn", "search"]),
        st.sampled_from([0, 1, 4]),
    ),
)
gigabytes = st.floats(0.1, 1e4)
profiles = st.builds(
    lambda ram, **parts: Profile(
        target=Target(parts.pop("isa"), parts.pop("cores"), max(ram), min(ram), parts.pop("disk")), **parts
    ),
    ram=st.tuples(gigabytes, gigabytes),
    isa=st.lists(st.sampled_from(ISA_FLAGS), min_size=1, unique=True).map(tuple),
    cores=st.integers(1, 1024),
    disk=gigabytes,
    name=st.text(min_size=1),
    description=st.text(),
    verified_on=st.text(),
    weights=st.builds(Weights, formats, st.lists(st.builds(Rule, st.text(), formats)).map(tuple)),
    session=st.builds(Session, intra_op_num_threads=st.integers(0, 1024), allow_spinning=st.booleans()),
    context=st.builds(Context, st.integers(4096, 1 << 20), st.integers(1, 4096), st.integers(2, 4096)),
    generation=st.builds(
        GenerationDefaults,
        temperature=st.floats(0, 10),
        top_k=st.integers(0, 1000),
        seed=st.none() | st.integers(0, 2**63 - 1),
    ),
    verify=st.builds(VerifyMargins, share, share, share, st.floats(1, 100), share),
)


pytestmark = pytest.mark.usefixtures("user_dir")


def write(directory, name, text):
    path = directory / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def child(tmp_path, body):
    return write(tmp_path, "mine", f'extends = "laptop-cpu"\n{body}')


@settings(max_examples=40)  # each builds a whole profile
@given(profiles)
def test_snapshots_roundtrip_through_json(profile) -> None:
    assert Profile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile


def test_what_ships_loads_and_lists() -> None:
    entries = list_profiles()
    assert tuple(entry.name for entry in entries) == SHIPPED
    for entry in entries:
        assert entry.error is None
        assert entry.origin == "built-in"
        profile = load_profile(entry.name)
        assert profile.name == entry.name == entry.path.stem
        assert entry.description == profile.description
        assert len(profile.description) < 120
        assert profile.tested == bool(profile.verified_on)


def test_the_default_is_a_four_bit_one_with_eight_bits_where_four_hurt() -> None:
    profile = load_profile(DEFAULT_PROFILE)
    assert profile.weights.default == WeightFormat(4, 32, False, "search", 4, scale_bits=8)
    assert {rule.match: rule.format.bits for rule in profile.weights.rules} == {
        "lm_head": 8,
        "embed": 8,
        "layers.*.attn.*": 8,
    }
    assert load_profile("laptop-cpu-int8").weights == Weights(WeightFormat(8, 64, True), ())
    assert load_profile("reference-fp32").weights == Weights(FLOAT32, ())


def test_extends_merges_tables_and_replaces_lists(tmp_path) -> None:
    path = child(
        tmp_path,
        """
        verified_on = "my desk"
        [target]
        ram_gb = 4
        [weights]
        rules = [{match = "layers.*.mlp.down", format = "int8"}]
        """,
    )
    profile, parent = load_profile(path), load_profile("laptop-cpu")
    assert profile.name == "mine"
    assert profile.tested
    assert profile.target == Target(parent.target.isa, 4, 8.0, 4.0, 5.0)
    assert profile.weights.default == parent.weights.default
    assert profile.weights.rules == (Rule("layers.*.mlp.down", WeightFormat(8, 64, True)),)
    assert profile.context == parent.context


def test_extends_takes_a_relative_path_and_does_not_inherit_proof(tmp_path) -> None:
    write(tmp_path, "base", 'extends = "laptop-cpu"\nname = "other"\nverified_on = "a desk"\n[context]\nlength = 512')
    (tmp_path / "sub").mkdir()
    profile = load_profile(write(tmp_path / "sub", "leaf", 'extends = "../base.toml"'))
    assert (profile.name, profile.verified_on, profile.context.length) == ("leaf", "", 512)


def test_a_users_profile_comes_first_and_may_extend_its_own_name(user_dir) -> None:
    write(user_dir, "laptop-cpu", 'extends = "laptop-cpu"\n[context]\nlength = 1024')
    assert load_profile("laptop-cpu").context.length == 1024
    assert load_profile("laptop-cpu").target.cores == 4
    entry = next(entry for entry in list_profiles() if entry.name == "laptop-cpu")
    assert (entry.origin, entry.path.parent) == ("user", user_dir)


def test_a_broken_profile_does_not_hide_the_others(user_dir) -> None:
    write(user_dir, "broken", "context = 3")
    entries = {entry.name: entry for entry in list_profiles()}
    assert set(entries) == {*SHIPPED, "broken"}
    error = str(entries["broken"].error)
    assert "`context` is 3" in error or "missing" in error


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            "[context]\nlenght = 4",
            "unknown key `context.lenght`; `[context]` has length, kv_step, prefill_chunk. Did you",
        ),
        ("[contxt]\nlength = 4", "Did you mean `context`?"),
        ('[weights]\nrules = [{match = "a", fromat = "int4"}]', "unknown key `weights.rules[0].fromat`"),
        ('[weights]\nrules = [{match = "a"}]', "key `weights.rules[0].format` is missing"),
        ('[weights]\ndefault = "int4-b33"', "`weights.default`: `b33`"),
        ("[weights]\ndefault = 4", "`weights.default` is 4; expected a text"),
        ("weights = 4", "`weights` is 4; expected a table"),
        ("[weights.rules]\nmatch = 1", "`weights.rules` is a table; expected a list"),
        ('[context]\nlength = "4096"', "`context.length` is '4096'; expected a whole number"),
        ("[context]\nlength = 4096.0", "`context.length` is 4096.0; expected a whole number"),
        ("[context]\nlength = true", "`context.length` is True; expected a whole number"),
        ("[context]\nlength = 3", "`context.length` is 3; expected a whole number at least 16 and at most"),
        ("[context]\nlength = 64", "`context.prefill_chunk` is 256, more than `context.length` 64"),
        ("[generation]\ntemperature = nan", "`generation.temperature` is nan; expected a finite number"),
        ("[generation]\ntop_p = 0", "`generation.top_p` is 0.0; expected a number above 0 and at most 1"),
        ("[session]\nallow_spinning = 1", "`session.allow_spinning` is 1; expected true or false"),
        (
            '[session]\ngraph_optimization_level = "al"',
            "expected one of 'disable', 'basic', 'extended', 'layout', 'all'",
        ),
        ('[target]\nisa = ["avx22"]', "`target.isa[0]` is 'avx22'; expected one of"),
        ('[target]\nisa = "avx2"', "`target.isa` is 'avx2'; expected a list"),
        ("[target]\nisa = []", "`target.isa` is empty"),
        ("[target]\nram_gb = 9", "`target.ram_gb` is 9, more than `target.machine_ram_gb` 8"),
        ("[target]\nram_gb = 0", "expected a number above 0"),
        ('[kv_cache]\ndtype = "float8"', "`kv_cache.dtype` is 'float8'; expected one of 'float32'"),
    ],
)
def test_bad_values_name_file_key_found_and_expected(tmp_path, body, expected) -> None:
    path = child(tmp_path, body)
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("name = 'a'\n[target\n", "malformed TOML: .*line 2"),
        ("a = ", "malformed TOML: .*line 1"),
        ("name = 'a'\nname = 'b'", "malformed TOML: .*line 2"),
        ("a = " + "[" * 5000, "malformed TOML"),
        ("", "key `description` is missing"),
        ("extends = 3", "`extends` is 3; expected the name or the path"),
        ('extends = "nope"', "`extends`: Unknown profile 'nope'"),
        ('extends = "./nope.toml"', "`extends`: No profile file"),
    ],
)
def test_bad_files(tmp_path, body, expected) -> None:
    with pytest.raises(ProfileError, match=expected) as caught:
        load_profile(write(tmp_path, "bad", body))
    assert "\n" not in str(caught.value)


def test_circles_are_refused(tmp_path) -> None:
    write(tmp_path, "a", 'extends = "./b.toml"')
    write(tmp_path, "b", 'extends = "./c.toml"')
    write(tmp_path, "c", 'extends = "./a.toml"')
    with pytest.raises(ProfileError, match=r"circle: a\.toml -> b\.toml -> c\.toml -> a\.toml"):
        load_profile(tmp_path / "a.toml")


def test_circles_among_names_are_refused(user_dir) -> None:
    write(user_dir, "one", 'extends = "two"')
    write(user_dir, "two", 'extends = "one"')
    with pytest.raises(ProfileError, match="circle"):
        load_profile("one")


def test_files_that_are_no_text(tmp_path) -> None:
    path = tmp_path / "binary.toml"
    path.write_bytes(b"name = '\xff\xfe'")
    with pytest.raises(ProfileError, match="byte 8 is not UTF-8"):
        load_profile(path)
    with pytest.raises(ProfileError, match="No profile file"):
        load_profile(tmp_path / "absent.toml")
    (tmp_path / "directory.toml").mkdir()
    with pytest.raises(ProfileError, match="No profile file"):
        load_profile(tmp_path / "directory.toml")


def test_unknown_names_get_the_nearest() -> None:
    with pytest.raises(
        ProfileError, match=r"Unknown profile 'laptop'; expected one of .*, laptop-cpu, .*Did you mean 'laptop-cpu'"
    ):
        load_profile("laptop")
    with pytest.raises(ProfileError, match=r"A path to a \.toml file works too"):
        load_profile("zzz")


def test_overrides_of_the_command_line() -> None:
    profile = load_profile("laptop-cpu")
    changed = profile.with_overrides(weight_format=WeightFormat(8, 64, True), block_size=128, context_length=128)
    assert changed.weights == Weights(WeightFormat(8, 128, True), ())
    assert (changed.context.length, changed.context.prefill_chunk) == (128, 128)
    assert profile.with_overrides() == profile
    with pytest.raises(ProfileError, match=r"command line: `context\.length` is 1"):
        profile.with_overrides(context_length=1)
    with pytest.raises(UsageError, match="block size"):
        profile.with_overrides(block_size=48)


def test_importing_profiles_loads_nothing_heavy() -> None:
    code = (
        "import sys, edgedistill.profile.profile as p; p.load_profile('laptop-cpu'); p.list_profiles();"
        "print(sorted({'numpy', 'torch', 'onnx', 'onnxruntime', 'psutil'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
