from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgedistill.errors import BundleError, GenerationError
from edgedistill.runtime.decoder import Decoder
from edgedistill.runtime.measure import selftest as selftest_module
from edgedistill.runtime.measure.bench import BenchResult, bench
from edgedistill.runtime.measure.selftest import divergence, selftest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class CountingProgress:
    def __init__(self) -> None:
        self.total, self.done, self.ended = 0, 0, False

    def begin(self, stage: str, total: int, unit: str) -> None:
        self.total = total

    def advance(self, amount: int) -> None:
        self.done += amount

    def end(self) -> None:
        self.ended = True


# ---- bench --------------------------------------------------------------------------------------------------------


def test_bench_measures_a_bundle(tiny_bundle: Callable[[str], Path]) -> None:
    progress = CountingProgress()
    path = tiny_bundle("int4-b32")
    got = bench(path, threads=1, prompt_tokens=[8, 33], new_tokens=6, rounds=2, progress=progress)
    assert (got.bundle, got.threads, got.decode_context) == ("int4-b32", 1, 8)
    assert [rate.tokens for rate in got.prefill] == [8, 33]
    assert got.decode.tokens == 6
    assert all(len(rate.values) == 2 and min(rate.values) > 0 for rate in (*got.prefill, got.decode))
    assert got.load_s > 0
    assert 0 < got.step_p50_s <= got.step_p95_s
    assert got.bundle_bytes == sum(f.stat().st_size for f in path.iterdir() if f.name != "manifest.json")
    # The child's own memory: this process holds torch and is far larger.
    assert 20e6 < got.rss_loaded_bytes <= got.peak_rss_bytes < 300e6
    if sys.platform != "darwin":  # which does not say
        assert got.private_loaded_bytes is not None
        assert 0 < got.private_loaded_bytes < got.rss_loaded_bytes
    assert (progress.done, progress.total, progress.ended) == (6, 6, True)
    as_json = json.loads(json.dumps(got.to_dict()))
    assert as_json["decode"]["min"] <= as_json["decode"]["median"] <= as_json["decode"]["max"]
    assert BenchResult.from_dict({**as_json, "prefill": as_json["prefill"]}) == got


def test_bench_defaults_fit_the_context(tiny_bundle: Callable[[str], Path]) -> None:
    got = bench(tiny_bundle("fp32"), threads=1, rounds=1)
    assert [rate.tokens for rate in got.prefill] == [64]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt_tokens": 150, "new_tokens": 20}, "150 prompt and 20 new tokens"),
        ({"rounds": 0}, "at least 1"),
        ({"prompt_tokens": []}, "at least 1"),
        ({"threads": -2}, "threads is -2"),
    ],
)
def test_bench_refuses_nonsense(tiny_bundle: Callable[[str], Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(GenerationError, match=message):
        bench(tiny_bundle("fp32"), **options)


def test_bench_needs_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nothing"):
        bench(tmp_path / "none")


# ---- self-test ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quantized(tiny_bundle: Callable[[str], Path]) -> Path:
    return tiny_bundle("int4-b128")


def test_selftest_passes_and_measures(quantized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest_module, "TEXT_TOKENS", 70)
    progress = CountingProgress()
    got = selftest(quantized, threads=1, progress=progress)
    assert got.passed
    names = [check.name for check in got.checks]
    assert names[:2] == ["run to run", "new session"]
    assert len(set(names)) == len(names) == 9
    held = {check.name: check.held for check in got.checks}
    assert held["one thread and several"] is None
    assert all(held[name] for name in ("any chunking", "batch and single", "exact steps against prefill"))
    assert got.tokens > 66  # otherwise no chunk of 65 was tried
    assert [d.positions for d in got.divergences] == [got.tokens] * 2
    # Under accuracy level 4 a one-token step is not a prefill; the distance is small, and measured.
    first = got.divergences[0]
    assert 0 < first.mean_kl <= first.p99_kl <= first.max_kl < 1
    assert 0.5 < first.top1_agreement <= 1
    assert (progress.done, progress.ended) == (progress.total, True)
    assert json.loads(json.dumps(got.to_dict()))["passed"] is True


def test_selftest_notices_paths_that_part(tiny_bundle: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """With exact steps that are not, the check must fail and say by how much."""
    feed = Decoder.feed
    monkeypatch.setattr(
        Decoder,
        "feed",
        lambda self, tokens, *, exact=False, logits=True: feed(self, tokens, exact=False, logits=logits),
    )
    got = selftest(tiny_bundle("int4-b128"), threads=1)
    broken = next(check for check in got.checks if check.name == "exact steps against prefill")
    assert broken.held is False
    assert broken.max_difference > 0
    assert broken.differing > 0
    assert not got.passed


def test_divergence_is_the_definition() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(40, 9)).astype(np.float32), rng.normal(size=(40, 9)).astype(np.float32)
    p = np.exp(a.astype(float)) / np.exp(a.astype(float)).sum(1, keepdims=True)
    q = np.exp(b.astype(float)) / np.exp(b.astype(float)).sum(1, keepdims=True)
    kl = (p * np.log(p / q)).sum(1)
    got = divergence("x", a, b)
    assert got.mean_kl == pytest.approx(kl.mean())
    assert got.max_kl == pytest.approx(kl.max())
    assert got.p99_kl == pytest.approx(np.percentile(kl, 99))
    assert got.top1_agreement == pytest.approx((p.argmax(1) == q.argmax(1)).mean())
    same = divergence("x", a, a)
    assert (same.mean_kl, same.top1_agreement) == (0.0, 1.0)
