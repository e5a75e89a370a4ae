"""The graph against transformers, for every family and RoPE kind, in every way of feeding tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from family_cases import CASES
from parity_support import (
    CONTEXT,
    Decoder,
    Exported,
    export,
    random_tokens,
    reference_logits,
    save_random_model,
    session_of,
)

from edgedistill.architecture.weights import logical_weights
from edgedistill.graph.parts import (
    KEYS_AND_VALUES,
    PER_LAYER,
    build_embedding,
    build_head,
    build_layer,
    build_second_embedding,
    inputs_of,
)
from edgedistill.graph.per_layer import INPUTS
from edgedistill.graph.weights import WeightEmitter
from edgedistill.quantize.plan import plan_weights
from edgedistill.quantize.spec import FLOAT32

pytest.importorskip("transformers")
pytestmark = pytest.mark.next

TOLERANCE = 1e-4


def recorded(params: dict[str, Any]) -> tuple[str, str, str]:
    """What a passed case says about its family, for the table of families."""
    import transformers

    return CASES[params["case"]][0], "logits", transformers.__version__


class Case:
    """A random model, its export, and 40 tokens with transformers' logits for them."""

    def __init__(self, model: Any, exported: Exported) -> None:
        self.model = model
        self.exported = exported
        self.tokens = random_tokens(40)
        self.expected = reference_logits(model, self.tokens)


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    model_type, values = CASES[request.param]
    directory = tmp_path_factory.mktemp(request.param)
    model = save_random_model(directory / "hf", model_type, **values)
    return Case(model, export(directory / "hf", directory / "out"))


@pytest.fixture
def attention(case: Case) -> Case:
    """A model of attention layers alone."""
    if case.exported.spec.states:
        pytest.skip("states cannot be taken back, and have no second signature")
    return case


@pytest.fixture
def uniform(case: Case) -> Case:
    """A model that other programs can feed."""
    if not case.exported.spec.is_uniform:
        pytest.skip("other programs feed caches of one shape, and no states")
    return case


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert expected.std() > 0.3, "logits of the reference hardly differ: the comparison would prove nothing"
    assert np.abs(found - expected).max() < TOLERANCE


def test_prefill_at_once(case: Case) -> None:
    assert_close(Decoder(case.exported, 1).step([case.tokens])[0], case.expected)


def test_token_by_token(case: Case) -> None:
    decoder = Decoder(case.exported, 1)
    found = np.concatenate([decoder.step([[token]])[0] for token in case.tokens])
    assert_close(found, case.expected)


def test_chunks(case: Case) -> None:
    decoder = Decoder(case.exported, 1)
    sizes = np.split(np.array(case.tokens), [9, 11, 12, 25])
    found = np.concatenate([decoder.step([chunk.tolist()])[0] for chunk in sizes])
    assert_close(found, case.expected)


def test_ragged_batch(case: Case) -> None:
    """Rows with different pasts and different numbers of new tokens, one of them idle for a step."""
    rows = [random_tokens(n, seed) for seed, n in enumerate((30, 19, 12))]
    cuts = [[14, 3, 1], [15, 10, 1], [22, 10, 10], [30, 19, 12]]
    decoder = Decoder(case.exported, 3)
    found: list[list[np.ndarray]] = [[], [], []]
    before = [0, 0, 0]
    for after in cuts:
        pieces = [row[a:b] for row, a, b in zip(rows, before, after, strict=True)]
        logits = decoder.step(pieces)
        for index, piece in enumerate(pieces):
            found[index].append(logits[index, : len(piece)])
        before = after
    rope = case.exported.spec.layers[0].rope
    for row, parts in zip(rows, found, strict=True):
        if rope is not None and rope.long_inv_freq and len(row) <= rope.original_length < CONTEXT:
            continue  # transformers takes the short factors for it; a bundle's context decides for all its rows
        assert_close(np.concatenate(parts), reference_logits(case.model, row))


def test_greedy_64_tokens_over_states(case: Case) -> None:
    """Every token is transformers' likeliest, so far into a text that an error of a state would have grown."""
    if not case.exported.spec.states:
        pytest.skip("keys and values are looked at by every test")
    decoder, tokens = Decoder(case.exported, 1), case.tokens[:30]
    logits = decoder.step([tokens])[0]
    for _ in range(64):
        tokens = [*tokens, int(logits[-1].argmax())]
        logits = decoder.step([tokens[-1:]])[0]
    expected = reference_logits(case.model, tokens[:-1])[29:]
    assert tokens[30:] == expected.argmax(axis=1).tolist()


def test_rollback(attention: Case) -> None:
    """Rejected tokens are forgotten by lowering the past."""
    decoder = Decoder(attention.exported, 1)
    first = decoder.step([attention.tokens[:20]])[0]
    decoder.step([random_tokens(6, seed=9)])
    decoder.past -= 6
    second = decoder.step([attention.tokens[20:]])[0]
    assert_close(np.concatenate([first, second]), attention.expected)


def test_chosen_positions(case: Case) -> None:
    wanted = np.array([[39, 0, 17], [5, 5, 21]])
    found = Decoder(case.exported, 2).step([case.tokens, case.tokens[:22]], wanted)
    assert_close(found, case.expected[wanted])


def test_genai_signature(uniform: Case) -> None:
    """The second graph over the same weights: attention mask in, all logits out, a cache that grows."""
    session = session_of(uniform.exported, "genai")
    spec = uniform.exported.spec
    shape = (1, spec.num_key_value_heads, 0, spec.head_dim)
    kinds = [f"{i}.{kind}" for i in range(spec.num_hidden_layers) for kind in ("key", "value")]
    past = {f"past_key_values.{k}": np.zeros(shape, dtype=np.float32) for k in kinds}
    found, total = [], 0
    for chunk in ([*uniform.tokens[:30]], *([token] for token in uniform.tokens[30:])):
        total += len(chunk)
        feeds = {"input_ids": np.array([chunk]), "attention_mask": np.ones((1, total), dtype=np.int64)} | past
        names = ["logits", *(f"present.{k}" for k in kinds)]
        logits, *present = session.run(names, feeds)
        past = dict(zip(past, present, strict=True))
        found.append(logits[0])
    assert present[0].shape[2] == len(uniform.tokens) < CONTEXT
    assert_close(np.concatenate(found), uniform.expected)


def test_portable_signature_with_rows_padded_on_the_left(uniform: Case) -> None:
    """The third graph: two prompts of unequal length, then token by token; padding has no effect on what follows it."""
    session, spec = session_of(uniform.exported, "portable"), uniform.exported.spec
    padding, prompt, total = 7, 30, 40
    tokens = np.array([uniform.tokens, [0] * padding + uniform.tokens[: total - padding]])
    mask = np.ones_like(tokens)
    mask[1, :padding] = 0
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)
    kinds = [f"{i}.{kind}" for i in range(spec.num_hidden_layers) for kind in ("key", "value")]
    empty = np.zeros((2, spec.num_key_value_heads, 0, spec.head_dim), dtype=np.float32)
    past = {f"past_key_values.{k}": empty for k in kinds}
    found = []
    for start, stop in [(0, prompt), *((i, i + 1) for i in range(prompt, total))]:
        feeds = {"input_ids": tokens[:, start:stop], "attention_mask": mask[:, :stop]} | past
        feeds |= {"position_ids": positions[:, start:stop]}
        logits, *present = session.run(["logits", *(f"present.{k}" for k in kinds)], feeds)
        past = dict(zip(past, present, strict=True))
        found.append(logits)
    both = np.concatenate(found, axis=1)
    assert np.isfinite(both).all()
    assert_close(both[0], uniform.expected)
    assert_close(both[1, padding:], uniform.expected[: total - padding])


def test_parts_one_after_another_are_the_whole(case: Case) -> None:
    """What calibration runs on: embedding, layers and head as graphs of their own, rows of unequal length."""
    spec, directory = case.exported.spec, case.exported.path
    if spec.altup:
        pytest.skip("several residual streams go from layer to layer, and it is not calibrated")
    planned = plan_weights(logical_weights(spec), FLOAT32).by_name()
    emitter = WeightEmitter(planned, case.exported.layout.arrays)

    def run(model: ir.Model, outputs: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        ir.save(model, directory / ".part.onnx")
        session = ort.InferenceSession(str(directory / ".part.onnx"), providers=["CPUExecutionProvider"])
        names = {value.name for value in session.get_inputs()}
        return session.run(outputs, {name: value for name, value in feeds.items() if name in names})

    ids = np.array([case.tokens, [*case.tokens[:11], *[0] * 29]])
    lengths = np.array([40, 11], np.int32)
    second: np.ndarray | None = None
    made: dict[int, list[np.ndarray]] = {}
    if spec.per_layer_size:
        (second,) = run(build_second_embedding(spec, emitter), [INPUTS], {"input_ids": ids})
    (hidden,) = run(build_embedding(spec, emitter), ["hidden.out"], {"input_ids": ids})
    for index, layer in enumerate(spec.layers):
        own = spec.of_layer(index)
        cache = np.zeros((2, spec.num_key_value_heads, 40, own.head_dim), np.float32)
        feeds = {
            "hidden": hidden,
            "seqlens_k": lengths - 1,
            "query_seqlens": lengths,
            "total_sequence_length": np.array(40, np.int32),
            "past.key": cache,
            "past.value": cache,
        }
        if second is not None:
            feeds[PER_LAYER] = second[:, :, index]
        if layer.keys_of is not None:
            feeds |= dict(zip(KEYS_AND_VALUES, made[layer.keys_of], strict=True))
        mixture = spec.layers[index].mixture
        tap = inputs_of(spec, f"layers.{index}.mlp.{'experts.gate_up' if mixture else 'down'}")
        (tapped,) = run(build_layer(spec, emitter, index, (tap,), positions=40), [tap], feeds)
        assert tapped.shape == (2, 40, spec.hidden_size if mixture else own.intermediate_size)
        wanted = ["hidden.out"]
        if index in {other.keys_of for other in spec.layers}:
            wanted += [f"layers.{index}.attn.k", f"layers.{index}.attn.v"]
        taps = tuple(wanted) if wanted[1:] else ()
        hidden, *made[index] = run(build_layer(spec, emitter, index, taps, positions=40), wanted, feeds)
    (logits,) = run(build_head(spec, emitter), ["logits"], {"hidden": hidden})
    np.testing.assert_allclose(logits[0], case.expected, rtol=0, atol=TOLERANCE * 10)
    np.testing.assert_allclose(logits[1, :11], case.expected[:11], rtol=0, atol=TOLERANCE * 10)
