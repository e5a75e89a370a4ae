"""onnxruntime-genai opens an exported directory unchanged and generates what our own graph generates."""

from __future__ import annotations

import functools
import json
import shutil
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from family_cases import QWEN3_MOE
from parity_support import BASE, CONTEXT, Decoder, Exported, export, random_tokens, save_random_model

from edgedistill.architecture.families import FAMILIES, build_spec
from edgedistill.checkpoint.tokenizer.pre_tokenizers import pre_tokenizer
from edgedistill.checkpoint.types import SpecialTokens
from edgedistill.export.genai_config import _READ_SPLITS, genai_config, reads_tokenizer, tokenizer_config
from edgedistill.quantize.plan import parse_format

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("transformers")
og = pytest.importorskip("onnxruntime_genai")

TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def special(*eos: int, bos: int | None = None) -> SpecialTokens:
    return SpecialTokens(
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token=None,
        bos_token_id=bos,
        pad_token_id=None,
        eos_token_ids=eos,
        add_bos=False,
    )


def add_genai_files(exported: Exported, tokens: SpecialTokens) -> Any:
    """What the pipeline writes beside the graphs, with a byte-level BPE tokenizer trained here; returns the latter."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["Mia has 14 apples and buys 3 bags of 6 apples each."] * 4, trainer)
    tokenizer.save(str(exported.path / "tokenizer.json"))
    config = genai_config(exported.spec, tokens, context_length=CONTEXT, generation={"temperature": 0.6})
    (exported.path / "genai_config.json").write_text(json.dumps(config))
    (exported.path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(tokens, TEMPLATE, CONTEXT)))
    return tokenizer


def genai_greedy(model: Any, prompt: list[int], length: int) -> list[int]:
    params = og.GeneratorParams(model)
    params.set_search_options(do_sample=False, max_length=length)
    generator = og.Generator(model, params)
    generator.append_tokens(np.array([prompt], dtype=np.int32))
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)]


def own_greedy(exported: Exported, prompt: list[int], length: int, eos: tuple[int, ...]) -> list[int]:
    decoder = Decoder(exported, 1)
    tokens, new = list(prompt), list(prompt)
    while len(tokens) < length:
        new = [int(decoder.step([new])[0, -1].argmax())]
        if new[0] in eos:  # onnxruntime-genai leaves the end out as well
            break
        tokens += new
    return tokens


NOT_READ = ("gemma3n_text", "gemma4_text")
FORMATS = ("int4-b32-asym", "int8", "fp32")
# Without them transformers makes 128 and 60, which is most of the time.
EXPERTS: dict[str, dict[str, Any]] = {
    "qwen3_moe": QWEN3_MOE,
    "qwen2_moe": {**QWEN3_MOE, "shared_expert_intermediate_size": 64},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A random checkpoint of a family, for all formats."""

    @functools.cache
    def saved(family: str) -> Path:
        # Untied, because a random tied model likes to repeat its last token; tied ones follow below.
        values: dict[str, Any] = {"vocab_size": 300, "hidden_size": 64, "sliding_window": 12}
        directory = tmp_path_factory.mktemp(family) / "hf"
        save_random_model(directory, family, seed=3, tie_word_embeddings=False, **values, **EXPERTS.get(family, {}))
        return directory

    return saved


@pytest.mark.parametrize(
    ("family", "fmt"), [(name, fmt) for name in FAMILIES if name not in NOT_READ for fmt in FORMATS]
)
def test_same_greedy_tokens(family: str, fmt: str, source: Callable[[str], Path], tmp_path: Path) -> None:
    exported = export(source(family), tmp_path / "out", parse_format(fmt))
    add_genai_files(exported, special(2))
    prompt = random_tokens(10)
    model = og.Model(str(exported.path))
    found = genai_greedy(model, prompt, 50)
    assert found == own_greedy(exported, prompt, 50, (2,))
    assert len(set(found[10:])) > 3, "a constant continuation would prove little"


def test_text_in_and_out_and_several_ends(tmp_path: Path) -> None:
    """With a tied model and two end tokens, of which one appears."""
    save_random_model(tmp_path / "hf", "qwen3", vocab_size=300, tie_word_embeddings=True)
    exported = export(tmp_path / "hf", tmp_path / "out")
    prompt = random_tokens(10)
    free = own_greedy(exported, prompt, 50, ())
    eos = (free[20], 299)
    tokenizer = add_genai_files(exported, special(*eos, bos=1))
    model = og.Model(str(exported.path))
    assert genai_greedy(model, prompt, 50) == own_greedy(exported, prompt, 50, eos) == free[: free.index(eos[0])]
    theirs = og.Tokenizer(model)
    text = "Mia has 14 apples,\n  and 3 bags."
    ids = [int(token) for token in theirs.encode(text)]
    assert ids == tokenizer.encode(text, add_special_tokens=False).ids
    assert theirs.decode(np.array(ids, dtype=np.int32)) == text
    chat = theirs.apply_chat_template(json.dumps([{"role": "user", "content": "Hi"}]), add_generation_prompt=False)
    assert chat == "<|im_start|>user\nHi<|im_end|>\n"


TEXTS = [
    "Don't you're I'LL 12345 times... hello   world\n\n  foo\t(x+1)^2",
    "The HTTPServer camelCase ABC's",
    *("".join(Random(seed).choices("0123456789 abcXYZ.,$+-\n\té中日'<>|\r/ß  ", k=25)) for seed in range(150)),
]


@pytest.mark.parametrize("name", [*_READ_SPLITS, "smollm", "youtu", "falcon"])
def test_tokenizers_that_it_reads(name: str, reasoner_dir: Path, tmp_path: Path) -> None:
    """Those said to be read give the same tokens; three that are not said so do not, or are refused."""
    from tokenizers import Tokenizer

    shutil.copytree(reasoner_dir, tmp_path / "bundle")
    tokenizer = Tokenizer.from_file(str(tmp_path / "bundle" / "tokenizer.json"))
    assert reads_tokenizer(tokenizer.to_str().encode()), "the built-in model's own"
    tokenizer.pre_tokenizer = pre_tokenizer(name)
    assert reads_tokenizer(tokenizer.to_str().encode()) == (name in _READ_SPLITS)
    tokenizer.save(str(tmp_path / "bundle" / "tokenizer.json"))
    model = og.Model(str(tmp_path / "bundle"))
    try:
        theirs = og.Tokenizer(model)
        same = all(list(theirs.encode(t)) == tokenizer.encode(t, add_special_tokens=False).ids for t in TEXTS)
    except RuntimeError:
        same = False
    assert same == (name in _READ_SPLITS)


def test_tokenizers_that_nobody_compared() -> None:
    assert not reads_tokenizer(b'{"model": {"type": "Unigram"}, "pre_tokenizer": {"type": "Metaspace"}}')
    assert not reads_tokenizer(b'{"model": {"type": "BPE"}, "pre_tokenizer": null}')
    assert reads_tokenizer(b'{"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel"}}')


def test_config_is_plain_data() -> None:
    spec = build_spec(BASE | {"model_type": "gemma3_text"})
    config = genai_config(spec, special(7, 9), context_length=64, generation={"temperature": 0.0, "top_k": 20})
    assert json.loads(json.dumps(config)) == config
    assert config["model"]["type"] == "gemma3_text"
    assert config["model"]["eos_token_id"] == [7, 9]
    assert config["model"]["pad_token_id"] == 7
    assert config["search"]["do_sample"] is False
    assert config["search"]["top_k"] == 20
    assert config["search"]["max_length"] == config["model"]["context_length"] == 64
