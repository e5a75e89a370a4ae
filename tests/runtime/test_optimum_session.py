"""The slower session over graphs of the fallback exporter: same interface, same answers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from api_server import serving
from bundle_files import copy_bundle
from exporting import export
from runtime_support import make_tokenizer

from edgedistill.bundle.bundle import MODEL, Bundle
from edgedistill.errors import BundleError, ContextLengthError
from edgedistill.export.layouts import write_layout
from edgedistill.export.optimum import trace as fallback
from edgedistill.runtime.decoder import InterruptedRunError
from edgedistill.runtime.measure.bench import bench
from edgedistill.runtime.measure.selftest import selftest
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.optimum_session import OptimumSession
from edgedistill.runtime.settings import GenerationSettings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(not fallback.is_available(), reason="the extra optimum is not installed")
CONTEXT = 96
GREEDY = GenerationSettings(temperature=0.0, max_new_tokens=24, ignore_eos=True)


@pytest.fixture(scope="module")
def neox(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A tiny random GPT-NeoX, its bundle and the transformers model."""
    import torch
    import transformers

    root = tmp_path_factory.mktemp("neox")
    tokenizer = make_tokenizer()
    config = transformers.GPTNeoXConfig(
        vocab_size=320,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        eos_token_id=2,
        bos_token_id=0,
    )
    torch.manual_seed(0)
    model = transformers.GPTNeoXForCausalLM(config).float().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("weight") and "norm" not in name:
                parameter.mul_(8.0)
    model.save_pretrained(root / "hf")
    tokenizer.save(str(root / "hf" / "tokenizer.json"))
    (root / "hf" / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    export(root / "hf", root / "out", exporter="optimum", format="fp32", context=CONTEXT, check=False)
    return root / "out", model


@pytest.fixture(scope="module")
def model(neox: tuple[Path, Any]) -> Iterator[Model]:
    with open_bundle(neox[0], threads=1) as opened:
        yield opened


def test_greedy_tokens_equal_transformers(model: Model, neox: tuple[Path, Any]) -> None:
    import torch

    ids = model.encode("What is 12 + 30?", raw=True)
    with torch.no_grad():
        out = neox[1].generate(
            torch.tensor([ids]), max_new_tokens=24, do_sample=False, eos_token_id=319, pad_token_id=0
        )
    expected = out[0, len(ids) :].tolist()
    assert len(set(expected)) > 3
    assert isinstance(model.session, OptimumSession)
    for mode in ("fast", "exact"):
        got = model.generate("What is 12 + 30?", settings=GREEDY, raw=True, numerics=mode)
        assert list(got.tokens) == expected
    assert got.stats.kv_bytes == got.stats.kv_tokens * model.bundle.manifest.kv_cache.bytes_per_token


def test_rollback_reuse_and_score(model: Model) -> None:
    ids = list(range(10, 40))
    decoder = model.session.decoder()
    decoder.feed(ids[:20])
    expected = decoder.feed(ids[20:]).copy()
    decoder.truncate(20)
    np.testing.assert_allclose(decoder.feed(ids[20:]), expected, atol=1e-5)
    assert decoder.cached(exact=False).tolist() == ids
    assert decoder.cached(exact=True).tolist() == []
    parts = list(model.session.decoder().score(np.array([ids]), chunk=8))
    np.testing.assert_allclose(np.concatenate([p.logits for p in parts])[-1], expected, atol=1e-4)
    logits = np.concatenate([p.logits for p in parts]).astype(np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(model.score(ids), log_probs[np.arange(29), ids[1:]], atol=1e-4)
    first = model.generate("abc", settings=GREEDY, raw=True)
    again = model.generate("abc" + first.text, settings=GREEDY.replace(max_new_tokens=2), raw=True)
    assert again.stats.cached_tokens >= len(model.encode("abc", raw=True))


def test_context_and_interrupt(model: Model) -> None:
    decoder = model.session.decoder()
    with pytest.raises(ContextLengthError, match=r"97 tokens.*96"):
        decoder.feed([5] * 97)
    decoder.feed([5] * 10)
    decoder.interrupt()
    with pytest.raises(InterruptedRunError):
        decoder.feed([5] * 50)
    decoder.resume()
    assert decoder.length == 10
    assert decoder.feed([6]).shape == (320,)
    with pytest.raises(ValueError, match="cannot be cut"):
        decoder.truncate(12)


def test_bench_and_selftest_know_the_signature(neox: tuple[Path, Any]) -> None:
    assert bench(neox[0], threads=1, prompt_tokens=16, new_tokens=4, rounds=1).decode.median > 0
    got = selftest(neox[0], threads=1)
    assert {c.name: c.held for c in got.checks}["run to run"] is True
    assert got.divergences[0].mean_kl < 1e-6


def test_other_graphs_are_refused(neox: tuple[Path, Any], tmp_path: Path) -> None:
    other = copy_bundle(neox[0], tmp_path / "other", model_onnx=_without_past(neox[0]))
    with pytest.raises(BundleError, match="not a decoder with a KV cache"):
        OptimumSession(Bundle.open(other))


def _without_past(bundle: Path) -> bytes:
    """The bundle's graph under other names for its cache."""
    import onnx

    graph = onnx.load(str(bundle / MODEL), load_external_data=False)
    for value in graph.graph.input:
        value.name = value.name.replace("past_key_values", "cache")
    for node in graph.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = name.replace("past_key_values", "cache")
    content: bytes = graph.SerializeToString()
    return content


def test_a_server_answers_one_request_after_the_other(model: Model) -> None:
    """Clients at once get what the model alone generates; a prompt that goes on takes what the cache holds."""
    import openai

    prompts = ["What is 12 + 30?", "größer café", "0123456789 " * 3]
    asked: Any = {"temperature": 0.9, "seed": 3, "max_new_tokens": 24, "raw": True}
    told = [model.generate(prompt, **asked) for prompt in prompts]
    with serving(model, parallel=4) as served:
        assert served.service.batch.places == 1
        assert "one after the other" in served.service.notes[0]
        with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0) as client:

            def ask(prompt: str, **more: Any) -> Any:
                return client.completions.create(
                    model="tiny", prompt=prompt, temperature=0.9, seed=3, max_tokens=24, **more
                )

            with ThreadPoolExecutor(6) as pool:
                got = list(pool.map(ask, prompts * 2))
            assert [one.choices[0].text for one in got] == [one.text for one in told] * 2
            assert "".join(c.choices[0].text for c in ask(prompts[1], stream=True) if c.choices) == told[1].text
            longer = ask(prompts[1] + told[1].text[:4])
            assert longer.usage.prompt_tokens_details.cached_tokens >= len(model.encode(prompts[1], raw=True))
            ids = model.encode(prompts[0], raw=True)
            scored: Any = client.completions.create(model="tiny", prompt=ids, echo=True, logprobs=1, max_tokens=0)
            scores = [float(value) for value in model.score(ids)]
            assert scored.choices[0].logprobs.token_logprobs[1:] == pytest.approx(scores, abs=1e-4)
        assert not served.bugs


def test_its_layout_takes_a_batch_padded_on_the_left(neox: tuple[Path, Any], model: Model, tmp_path: Path) -> None:
    import torch
    from optimum.onnxruntime import ORTModelForCausalLM

    write_layout(Bundle.open(neox[0]), "optimum", tmp_path / "layout")
    texts = ["What is 12 + 30?", "größer café, 0123456789"]
    prompts = [model.encode(text, raw=True) for text in texts]
    most = max(map(len, prompts))
    assert min(map(len, prompts)) < most
    pads = [most - len(ids) for ids in prompts]
    loaded = ORTModelForCausalLM.from_pretrained(tmp_path / "layout")
    out = loaded.generate(
        input_ids=torch.tensor([[0] * n + ids for n, ids in zip(pads, prompts, strict=True)]),
        attention_mask=torch.tensor([[0] * n + [1] * (most - n) for n in pads]),
        max_new_tokens=24, do_sample=False, eos_token_id=319, pad_token_id=0,
    )  # fmt: skip
    for text, row in zip(texts, out.tolist(), strict=True):
        assert row[most:] == list(model.generate(text, settings=GREEDY, raw=True).tokens)
