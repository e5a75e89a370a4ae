from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgedistill.errors import GenerationError
from edgedistill.runtime import sampling
from edgedistill.runtime.sampling import NoiseKey, NoiseSource, Sampler, candidates, choose, greedy, mix64
from edgedistill.runtime.settings import GenerationSettings, check_numerics

logits_rows = hnp.arrays(
    np.float32, st.integers(2, 60), elements=st.floats(-20, 20, width=32, allow_nan=False, allow_infinity=False)
)


def chi_square_bound(degrees: int) -> float:
    """0.9999 quantile of chi-square (Wilson-Hilferty), so that a right sampler fails one time in ten thousand."""
    z = 3.719
    return degrees * (1 - 2 / (9 * degrees) + z * math.sqrt(2 / (9 * degrees))) ** 3


def chi_square(counts: np.ndarray, probs: np.ndarray) -> float:
    expected = counts.sum() * probs
    return float(((counts - expected) ** 2 / expected).sum())


def uniform(key: NoiseKey, position: int, ids: np.ndarray) -> np.ndarray:
    """The numbers of one row."""
    return sampling.uniform(np.array([key.state], np.uint64), np.array([position]), ids[None])[0]


def draw(logits: np.ndarray, config: GenerationSettings, key: NoiseKey, position: int) -> int:
    """One token of one row."""
    return int(choose(logits[None], config, np.array([key.state], np.uint64), np.array([position]))[0])


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max())
    return e / e.sum()


# ---- noise ------------------------------------------------------------------------------------------------------


def test_hash_is_splitmix64() -> None:
    # First outputs of SplitMix64 seeded with 1234567 (the reference values of the published C code).
    state = np.uint64(1234567) + np.arange(1, 6, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert mix64(state).tolist() == expected


def test_noise_is_a_function_of_its_key() -> None:
    ids = np.arange(1000)
    a = uniform(NoiseKey.of(7, prompt="p", sample=3), 5, ids)
    assert np.array_equal(a, uniform(NoiseKey.of(7, prompt="p", sample=3), 5, ids))
    assert np.array_equal(a[[4, 900]], uniform(NoiseKey.of(7, prompt="p", sample=3), 5, np.array([4, 900])))
    for other in (
        uniform(NoiseKey.of(8, prompt="p", sample=3), 5, ids),
        uniform(NoiseKey.of(7, prompt="q", sample=3), 5, ids),
        uniform(NoiseKey.of(7, prompt="p", sample=4), 5, ids),
        uniform(NoiseKey.of(7, prompt="p", sample=3), 6, ids),
    ):
        assert abs(np.corrcoef(a, other)[0, 1]) < 0.15
        assert not np.any(a == other)


def test_noise_is_pinned() -> None:
    """Seeds keep their meaning over versions: a change here changes everybody's reproductions."""
    got = uniform(NoiseKey.of(42, prompt="p1", sample=2), 3, np.array([0, 1, 49151]))
    assert got.tolist() == [0.9100695696991195, 0.3027341003171001, 0.5660057837603785]


@pytest.mark.parametrize("axis", ["seed", "sample", "position", "token"])
def test_uniform_along_every_axis(axis: str) -> None:
    n = 20_000
    if axis == "token":
        u = uniform(NoiseKey.of(1), 0, np.arange(n))
    else:
        one = np.array([11])
        parts = [{"seed": (i, 0, 0), "sample": (1, i, 0), "position": (1, 0, i)}[axis] for i in range(n)]
        u = np.array([uniform(NoiseKey.of(s, sample=k), p, one)[0] for s, k, p in parts])
    assert u.min() > 0
    assert u.max() < 1
    assert chi_square(np.bincount((u * 50).astype(int), minlength=50), np.full(50, 1 / 50)) < chi_square_bound(49)
    pairs = (u[:-1] * 8).astype(int) * 8 + (u[1:] * 8).astype(int)  # neighbours are independent
    assert chi_square(np.bincount(pairs, minlength=64), np.full(64, 1 / 64)) < chi_square_bound(63)


# ---- draws ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("vary", ["position", "sample"])
def test_frequencies_match_the_distribution(temperature: float, vary: str) -> None:
    logits = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -1.5], dtype=np.float32)
    config = GenerationSettings(temperature=temperature)
    draws = [
        draw(logits, config, NoiseKey.of(3, sample=i if vary == "sample" else 0), i if vary == "position" else 0)
        for i in range(10_000)
    ]
    counts = np.bincount(draws, minlength=6)
    assert chi_square(counts, softmax(logits / temperature)) < chi_square_bound(5)


def test_frequencies_match_after_filters() -> None:
    logits = np.log(np.array([0.4, 0.3, 0.15, 0.1, 0.05])).astype(np.float32)
    config = GenerationSettings(temperature=1.0, top_k=4, top_p=0.8)
    options = candidates(logits, config)
    assert options.ids.tolist() == [0, 1, 2]  # of the renormalised top four .42 + .32 < .8
    counts = np.bincount([draw(logits, config, NoiseKey.of(0), i) for i in range(10_000)], minlength=3)
    assert chi_square(counts, np.array([0.4, 0.3, 0.15]) / 0.85) < chi_square_bound(2)


def test_coupled_draws_agree_where_the_distributions_do() -> None:
    """The point of counter-based noise: a small change of the logits changes few draws."""
    rng = np.random.default_rng(0)
    config = GenerationSettings(temperature=1.0)
    a = rng.normal(size=(2000, 40)).astype(np.float32)
    b = a + rng.normal(scale=0.01, size=a.shape).astype(np.float32)
    key, other = NoiseKey.of(1), NoiseKey.of(2)
    same = np.mean(
        [draw(x, config, key, i) == draw(y, config, key, i) for i, (x, y) in enumerate(zip(a, b, strict=True))]
    )
    uncoupled = np.mean([draw(x, config, key, i) == draw(x, config, other, i) for i, x in enumerate(a)])
    assert same > 0.97
    assert uncoupled < 0.3


# ---- filters ----------------------------------------------------------------------------------------------------


@given(
    logits_rows,
    st.floats(0.1, 3.0),
    st.integers(0, 70),
    st.floats(0.05, 1.0),
    st.floats(0.0, 1.0),
)
@settings(max_examples=200)
def test_filter_properties(row: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    before = row.copy()
    config = GenerationSettings(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    got = candidates(row, config)
    assert np.array_equal(row, before)
    assert len(got.ids) >= 1
    assert np.all(np.diff(got.ids) > 0)
    assert got.logprobs.dtype == np.float64
    assert math.isclose(np.exp(got.logprobs).sum(), 1.0, rel_tol=1e-9)
    assert int(row.argmax()) in got.ids
    if top_k:
        assert len(got.ids) <= top_k
    # What is kept is at least as likely as what is not, and the kept keep their odds.
    dropped = np.setdiff1d(np.arange(len(row)), got.ids)
    if len(dropped):
        assert row[got.ids].min() >= row[dropped].max() - 1e-6  # equal up to rounding
    odds = (row[got.ids].astype(np.float64) - row[got.ids[0]]) / temperature
    np.testing.assert_allclose(got.logprobs - got.logprobs[0], odds, atol=1e-9)
    if min_p:
        assert np.exp(got.logprobs.min() - got.logprobs.max()) >= min_p * (1 - 1e-9)


@given(logits_rows, st.floats(0.05, 0.999))
def test_top_p_is_the_smallest_sufficient_set(row: np.ndarray, top_p: float) -> None:
    got = candidates(row, GenerationSettings(temperature=1.0, top_p=top_p))
    probs = softmax(row)
    mass = probs[got.ids].sum()
    assert mass >= top_p - 2e-6
    assert mass - probs[got.ids].min() < top_p + 2e-6


@given(logits_rows, st.floats(0.2, 2.0))
def test_unfiltered_tail_is_below_its_bound(row: np.ndarray, temperature: float) -> None:
    got = candidates(row, GenerationSettings(temperature=temperature))
    assert softmax(row / np.float32(temperature))[got.ids].sum() > 1 - 2e-6


@pytest.mark.parametrize(
    "config",
    [
        {"temperature": 0.7},
        {"temperature": 1.3, "top_k": 5},
        {"temperature": 0.8, "top_p": 0.7},
        {"temperature": 1.0, "min_p": 0.1},
        {"temperature": 0.9, "top_k": 12, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.3},
    ],
)
def test_filters_are_those_of_transformers(config: dict[str, float]) -> None:
    torch = pytest.importorskip("torch")
    from transformers.generation import logits_process as hf

    rng = np.random.default_rng(5)
    row = rng.normal(scale=3, size=200).astype(np.float32)
    seen = np.array([3, 17, int(row.argmax())])
    chain: list[object] = []
    if "repetition_penalty" in config:
        chain.append(hf.RepetitionPenaltyLogitsProcessor(config["repetition_penalty"]))
    chain.append(hf.TemperatureLogitsWarper(config["temperature"]))
    if "top_k" in config:
        chain.append(hf.TopKLogitsWarper(int(config["top_k"])))
    if "top_p" in config:
        chain.append(hf.TopPLogitsWarper(config["top_p"]))
    if "min_p" in config:
        chain.append(hf.MinPLogitsWarper(config["min_p"]))
    scores = torch.from_numpy(row)[None]
    for process in chain:
        scores = process(torch.from_numpy(seen)[None], scores)  # type: ignore[operator]
    expected = torch.softmax(scores.double(), -1)[0].numpy()
    got = candidates(row, GenerationSettings(**config), seen)  # type: ignore[arg-type]
    dense = np.zeros(200)
    dense[got.ids] = np.exp(got.logprobs)
    np.testing.assert_allclose(dense, expected, atol=3e-6)


def test_top_k_breaks_ties_by_id() -> None:
    got = candidates(np.array([1, 5, 5, 5, 0], dtype=np.float32), GenerationSettings(temperature=1.0, top_k=2))
    assert got.ids.tolist() == [1, 2]


# ---- greedy, penalty, errors ------------------------------------------------------------------------------------


def test_greedy_takes_the_first_of_equals() -> None:
    assert greedy(np.array([0, 3, 3, 1], dtype=np.float32)) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_bad_logits_are_an_error(bad: float) -> None:
    row = np.array([0, bad, 1], dtype=np.float32)
    with pytest.raises(GenerationError, match="not finite"):
        greedy(row)
    with pytest.raises(GenerationError, match="not finite"):
        candidates(row, GenerationSettings(temperature=1.0))


def test_penalty_pushes_both_signs_down() -> None:
    row = np.array([2.0, -2.0, 1.0], dtype=np.float32)
    config = GenerationSettings(temperature=1.0, repetition_penalty=2.0)
    odds = candidates(row, config, np.array([0, 1])).logprobs
    np.testing.assert_allclose(odds - odds[0], [0.0, -5.0, 0.0], atol=1e-6)


def test_sampler_observes_what_it_was_told() -> None:
    row = np.array([2.0, 1.9, 0.0], dtype=np.float32)
    sampler = Sampler(GenerationSettings(repetition_penalty=1.5), NoiseKey.of(0), vocab_size=3)
    assert sampler.choose(row, 0) == 0
    sampler.observe([0])
    assert sampler.choose(row, 1) == 1


def test_same_seed_same_text_other_seed_other_text() -> None:
    rows = np.random.default_rng(1).normal(size=(64, 500)).astype(np.float32)

    def text(seed: int) -> list[int]:
        sampler = Sampler(GenerationSettings(temperature=1.0), NoiseKey.of(seed), vocab_size=500)
        return [sampler.choose(row, i) for i, row in enumerate(rows)]

    assert text(1) == text(1)
    assert text(1) != text(2)


# ---- settings ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", "hot"),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("min_p", -0.1),
        ("repetition_penalty", 0),
        ("seed", -1),
        ("seed", 2**64),
        ("max_new_tokens", 0),
        ("stop", ("",)),
        ("stop", tuple("abc" * 20)),
        ("ignore_eos", 1),
    ],
)
def test_settings_name_the_bad_field(field: str, value: object) -> None:
    with pytest.raises(GenerationError, match=r"stop strings" if field == "stop" and len(value) > 1 else field):  # type: ignore[arg-type]
        GenerationSettings(**{field: value})  # type: ignore[arg-type]


def test_settings_from_defaults() -> None:
    defaults = {"temperature": 0.6, "top_k": 20, "eos_token_id": 2, "do_sample": True, "stop": "END", "top_p": None}
    got = GenerationSettings.from_defaults(defaults, top_k=None, seed=5)
    assert got == GenerationSettings(temperature=0.6, top_k=20, stop=("END",), seed=5)
    assert GenerationSettings.from_defaults({"temperature": 0.6, "do_sample": False}).greedy
    assert GenerationSettings.from_defaults({"do_sample": False}, temperature=0.5).temperature == 0.5
    with pytest.raises(GenerationError, match="temperatur'"):
        GenerationSettings.from_defaults({}, temperatur=1.0)
    assert GenerationSettings.from_defaults(got.to_dict()) == got


def test_mode_is_checked() -> None:
    assert check_numerics("exact") == "exact"
    with pytest.raises(GenerationError, match="fast or exact"):
        check_numerics("precise")


def test_keys_of_many_samples_are_those_of_each() -> None:
    indices = [0, 1, 2, 511, 2**40]
    found = NoiseSource().keys(2**64 - 1, "a prompt", indices)
    assert found.tolist() == [NoiseKey.of(2**64 - 1, prompt="a prompt", sample=i).state for i in indices]
    assert NoiseSource().keys(0, "p", range(0)).shape == (0,)
