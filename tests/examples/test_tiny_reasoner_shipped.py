"""The shipped directory of tiny-reasoner is complete, consistent, small, and answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from questions import FILE as QUESTIONS
from questions import lines as question_lines
from safetensors import safe_open
from tokenizers import Tokenizer

SHIPPED = Path(__file__).parents[2] / "src" / "edgedistill" / "catalog" / "models" / "tiny-reasoner"
NEEDED = (
    "README.md",
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "metrics.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)


def read(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((SHIPPED / name).read_text(encoding="utf-8"))
    return loaded


def test_the_directory_is_complete_and_below_ten_megabytes() -> None:
    files = {path.name: path.stat().st_size for path in SHIPPED.iterdir()}
    assert set(files) == set(NEEDED)
    assert sum(files.values()) < 10_000_000


def test_vocabulary_embedding_and_config_agree() -> None:
    config, tokenizer = read("config.json"), Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    with safe_open(SHIPPED / "model.safetensors", "np") as weights:
        names = set(weights.keys())
        assert weights.get_slice("model.embed_tokens.weight").get_shape() == [
            config["vocab_size"],
            config["hidden_size"],
        ]
        assert all(weights.get_slice(name).get_dtype() == "F32" for name in names)
    assert tokenizer.get_vocab_size() == config["vocab_size"]
    assert "lm_head.weight" not in names
    assert config["tie_word_embeddings"] is True
    assert config["model_type"] == "qwen3"
    assert config["hidden_size"] % 128 == config["intermediate_size"] % 128 == 0


def test_markers_are_single_tokens_and_text_survives() -> None:
    tokenizer = Tokenizer.from_file(str(SHIPPED / "tokenizer.json"))
    for marker in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"):
        assert len(tokenizer.encode(marker).ids) == 1
    text = "Zoë pays 12,50 € for 1234 ☕?\n\tOk  then."
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
    assert tokenizer.encode("1234").tokens == ["1", "2", "3", "4"]
    generation = read("generation_config.json")
    assert generation["eos_token_id"] == [tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")]


def test_the_template_renders_with_and_without_thinking() -> None:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    source = (SHIPPED / "chat_template.jinja").read_text(encoding="utf-8")
    assert read("tokenizer_config.json")["chat_template"] == source
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)
    history = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1 + 1"},
        {"role": "assistant", "content": "<think>\n1 + 1 = 2.\n</think>\n\n\\boxed{2}"},
        {"role": "user", "content": "2 + 2"},
    ]
    text = template.render(messages=history, add_generation_prompt=True)
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1 + 1<|im_end|>\n"
        "<|im_start|>assistant\n\\boxed{2}<|im_end|>\n<|im_start|>user\n2 + 2<|im_end|>\n<|im_start|>assistant\n"
    )
    quiet = template.render(messages=history, add_generation_prompt=True, enable_thinking=False)
    assert quiet == text + "<think>\n\n</think>\n\n"


def test_the_model_card_states_the_measured_numbers() -> None:
    metrics, card = read("metrics.json"), (SHIPPED / "README.md").read_text(encoding="utf-8")
    for band, row in metrics["thinking"].items():
        low, high = row["interval"]
        assert f"| {band} | {row['n']} | {row['accuracy']:.1%} | {low:.1%} to {high:.1%} |" in card
    assert f"{metrics['in_range']['accuracy']:.1%}" in card
    assert metrics["in_range"]["n"] >= 500
    assert metrics["in_range"]["accuracy"] >= 0.95
    shares = {band: row["between_0.5_and_0.99"] for band, row in metrics["sampling"].items()}
    assert all(f"{band} {share:.0%}" in card for band, share in shares.items())
    assert max(shares["stretch"], shares["hard"]) >= 0.4


def test_the_example_questions_are_held_out_and_up_to_date() -> None:
    written = QUESTIONS.read_text(encoding="utf-8").splitlines()
    assert written == question_lines()
    rows = [json.loads(line) for line in written]
    assert len({row["id"] for row in rows}) == len(rows) >= 100


def test_greedy_answers_of_the_shipped_weights_are_right() -> None:
    pytest.importorskip("torch")
    from evaluate import answer_of, answers, load
    from tokenizer import prompt_text

    rows = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    chosen = [row for row in rows if row["band"] in ("one-step", "two-step", "three-step")]
    model, tokenizer = load(SHIPPED)
    prompts = [prompt_text([{"role": "user", "content": row["prompt"]}], thinking=True) for row in chosen]
    texts = [text for text, _ in answers(model, tokenizer, prompts)]
    assert all(re.match(r"<think>\n.*\n</think>\n\n.+", text, re.DOTALL) for text in texts)
    right = sum(answer_of(text) == row["answer"] for text, row in zip(texts, chosen, strict=True))
    assert right >= 0.9 * len(chosen)


def test_questions_outside_the_field_are_declined() -> None:
    pytest.importorskip("torch")
    from evaluate import answer_of, answers, load
    from tokenizer import prompt_text

    rows = [json.loads(line) for line in QUESTIONS.read_text(encoding="utf-8").splitlines()]
    model, tokenizer = load(SHIPPED)
    prompts = [
        prompt_text([{"role": "user", "content": row["prompt"]}], thinking=True)
        for row in rows
        if row["band"] == "outside"
    ]
    declined = [answer_of(text) is None and "arithmetic" in text for text, _ in answers(model, tokenizer, prompts)]
    assert sum(declined) >= 0.9 * len(declined)


def test_transformers_generates_the_same_greedy_tokens() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from evaluate import load
    from generate import generate

    model, tokenizer = load(SHIPPED)
    reference = transformers.AutoModelForCausalLM.from_pretrained(SHIPPED, dtype=torch.float32).eval()
    theirs = transformers.AutoTokenizer.from_pretrained(SHIPPED)
    text = theirs.apply_chat_template(
        [{"role": "user", "content": "What is 47 + 38 - 9?"}], tokenize=False, add_generation_prompt=True
    )
    ids = theirs(text, add_special_tokens=False).input_ids
    assert ids == tokenizer.encode(text).ids
    with torch.inference_mode():
        expected = reference.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=80)[0, len(ids) :].tolist()
    end, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    ours = generate(model, [ids], eos=end, pad=pad, max_new_tokens=80)[0]
    assert expected in (ours, [*ours, end])
    assert "\\boxed{76}" in tokenizer.decode(ours)
