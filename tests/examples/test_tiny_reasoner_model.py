"""The plain torch student is transformers' Qwen3, and batched sampling gives what single prompts give."""

# The imports that need torch come after the check for it.
# ruff: noqa: E402

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

torch = pytest.importorskip("torch")

from data import chunk
from generate import generate
from model import ModelConfig, Qwen3
from tokenizer import completion_text, corpus, prompt_text, save_tokenizer, train_tokenizer
from train import Recipe, loss_of, optimizers, rate, save_model

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(corpus(1, 2000))


@pytest.fixture
def model(tokenizer: Tokenizer) -> Qwen3:
    torch.manual_seed(0)
    model = Qwen3(ModelConfig(vocab_size=tokenizer.get_vocab_size(), num_hidden_layers=2))
    with torch.no_grad():  # norms and embeddings away from their flat start, so that a swapped one would show
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5)
            elif "embed" in name:
                parameter.mul_(4)
    return model.eval()


def test_logits_equal_those_of_transformers(model: Qwen3, tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_model(model, tokenizer, tmp_path)
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    assert type(reference).__name__ == "Qwen3ForCausalLM"
    tokens = torch.randint(0, model.config.vocab_size, (3, 47))
    with torch.inference_mode():
        hidden, _ = model(tokens)
        ours, theirs = model.logits(hidden), reference(tokens).logits
    assert theirs.std() > 0.3
    assert (ours - theirs).abs().max() < 1e-4


def test_the_hand_written_norm_gradient_is_the_true_one() -> None:
    from model import _RMSNormFunction

    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: _RMSNormFunction.apply(a, b, 1e-6), (x, weight))


def test_a_ragged_batch_generates_what_each_prompt_generates_alone(model: Qwen3, tokenizer: Tokenizer) -> None:
    prompts = [tokenizer.encode(text).ids for text in ("47 + 38", "What is 12 * 7 and why?", "Hi")]
    options = {"eos": tokenizer.token_to_id("<|im_end|>"), "pad": tokenizer.token_to_id("<|endoftext|>")}
    together = generate(model, prompts, max_new_tokens=24, **options)
    alone = [generate(model, [prompt], max_new_tokens=24, **options)[0] for prompt in prompts]
    assert together == alone
    assert len({tuple(output) for output in together}) > 1


def test_sampling_follows_its_generator(model: Qwen3, tokenizer: Tokenizer) -> None:
    prompts = [tokenizer.encode("47 + 38").ids] * 4
    drawn = [
        generate(
            model,
            prompts,
            eos=-1,
            pad=-1,
            temperature=5.0,
            max_new_tokens=12,
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({tuple(row) for row in drawn[0]}) == 4


def test_batches_are_reproducible_and_learn_only_the_reply(tokenizer: Tokenizer) -> None:
    first = list(chunk(tokenizer, 7, 3, 2048))
    again = list(chunk(tokenizer, 7, 3, 2048))
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(first, again, strict=True))
    assert all(batch.tokens.numel() <= 2048 for batch in first)
    end, start = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|im_start|>")
    for batch in first[:10]:
        learned = batch.targets != -100
        assert (batch.targets == end).sum(1).tolist() == [1] * len(batch.tokens)
        assert not (batch.targets == start).any()
        assert torch.equal(batch.tokens[:, 1:][learned[:, :-1]], batch.targets[:, :-1][learned[:, :-1]])


def test_a_few_steps_lower_the_loss(tokenizer: Tokenizer) -> None:
    torch.manual_seed(0)
    model = Qwen3(ModelConfig(vocab_size=tokenizer.get_vocab_size(), num_hidden_layers=1))
    optims = optimizers(model, Recipe())
    batch = next(chunk(tokenizer, 7, 0, 1024))
    losses = []
    for _ in range(8):
        loss = loss_of(model, batch)
        loss.backward()
        losses.append(loss.item())
        for optim in optims:
            optim.step()
            optim.zero_grad()
    assert losses[-1] < losses[0] - 0.5


def test_the_rate_warms_up_stays_and_ends_at_zero() -> None:
    recipe = Recipe(total_tokens=1_000_000, warmup_tokens=100_000, decay_share=0.5)
    assert rate(recipe, 0) < 0.001
    assert rate(recipe, 300_000) == 1.0
    assert rate(recipe, 750_000) == pytest.approx(0.5)
    assert rate(recipe, 1_000_000) == 0.0


@pytest.mark.parametrize("thinking", [True, False])
def test_the_training_text_is_what_the_chat_template_renders(tmp_path: Path, thinking: bool) -> None:
    from random import Random

    from teacher import example

    transformers = pytest.importorskip("transformers")
    save_tokenizer(train_tokenizer(corpus(1, 200)), tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    rng = Random(4)
    for _ in range(100):
        drawn = example(rng)
        rendered = tokenizer.apply_chat_template(
            list(drawn.messages), tokenize=False, add_generation_prompt=True, enable_thinking=thinking
        )
        assert rendered == prompt_text(drawn.messages, thinking=thinking)
        whole = tokenizer.apply_chat_template(
            [*drawn.messages, {"role": "assistant", "content": completion_text(drawn.problem, thinking=True)[:-10]}],
            tokenize=False,
        )
        assert (
            whole == prompt_text(drawn.messages, thinking=True) + completion_text(drawn.problem, thinking=True) + "\n"
        )
