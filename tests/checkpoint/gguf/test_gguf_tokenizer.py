"""Tokenizers rebuilt from GGUF metadata: byte-level BPE by named pre-tokenizer, SentencePiece BPE from scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_fixtures import TEMPLATE, TEXT, tokenizer
from gguf_fixtures import LLAMA, write_gguf
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from edgedistill.catalog import builtin as catalog
from edgedistill.checkpoint.gguf.tokenizer import (
    NO_PRE,
    build_tokenizer,
    read_generation_config,
    read_special_tokens,
)
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.checkpoint.tokenizer.byte_level_bpe import build_byte_level_bpe
from edgedistill.checkpoint.tokenizer.pre_tokenizers import REFUSED
from edgedistill.errors import CheckpointError, UnsupportedModelError

SAMPLES = [
    "Ann has 3 apples and buys 4 more apples.",
    "  leading, trailing  \n\n\ttabs\r\n",
    "It's 12345 o'clock; WE'LL see: 3.14159",
    "Zoë's naïve café costs 20€ 🙂👍🏽 你好 мир",
    "def f(x):\n    return x ** 2  # comment\n",
    "",
    "<|im_start|>user\nhi<|im_end|>\n<think>\nso\n</think>",
]


def load(path: Path) -> Tokenizer:
    with open_checkpoint(str(path)) as checkpoint:
        return Tokenizer.from_buffer(checkpoint.tokenizer_json)


@pytest.mark.parametrize(
    "pre", ["gpt-2", "smollm", "qwen2", "llama-bpe", "tekken", "default", "gpt-4o", "deepseek-v3", None]
)
def test_text_survives_encoding_and_decoding(tmp_path: Path, pre: str | None) -> None:
    write_gguf(tmp_path / "m.gguf", pre=pre)
    rebuilt = load(tmp_path / "m.gguf")
    for text in SAMPLES:
        ids = rebuilt.encode(text, add_special_tokens=False).ids
        assert rebuilt.decode(ids, skip_special_tokens=False) == text


def test_same_ids_as_the_original_tokenizer(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", pre="gpt-2")
    rebuilt, original = load(tmp_path / "m.gguf"), tokenizer()
    for text in SAMPLES[:6]:
        assert rebuilt.encode(text).ids == original.encode(text).ids
    assert [rebuilt.token_to_id(text) for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [0, 1, 2]


def test_special_and_added_tokens(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf")
    rebuilt = load(tmp_path / "m.gguf")
    encoded = rebuilt.encode("<|im_start|>a<think>b<|im_end|>")
    assert encoded.tokens[0] == "<|im_start|>"
    assert "<think>" in encoded.tokens
    assert rebuilt.decode(encoded.ids) == "a<think>b"  # only control tokens are left out
    assert rebuilt.get_vocab_size() == 301  # padding of the embedding is no token
    with open_checkpoint(str(tmp_path / "m.gguf")) as checkpoint:
        special = checkpoint.special_tokens
        assert checkpoint.chat_template == TEMPLATE
    assert (special.eos_token, special.pad_token, special.bos_token) == ("<|im_end|>", "<|endoftext|>", None)
    assert special.eos_token_ids == (2, 0)
    assert special.add_bos is False


def pieces(pre: str, text: str) -> list[str]:
    """How a pre-tokenizer cuts ``text``."""
    content = build_byte_level_bpe(dict(enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))), [], pre)
    cut = Tokenizer.from_buffer(content).pre_tokenizer.pre_tokenize_str(text)
    return [text[begin:end] for _, (begin, end) in cut]


@pytest.mark.parametrize(
    ("pre", "text", "expected"),
    [
        ("gpt-2", "I'll pay 1234$  now", ["I", "'ll", " pay", " 1234", "$", " ", " now"]),
        ("smollm", "I'll pay 1234$  now", ["I", "'ll", " pay", " ", "1", "2", "3", "4", "$", " ", " now"]),
        ("qwen2", "I'LL pay 1234$  now", ["I", "'LL", " pay", " ", "1", "2", "3", "4", "$", " ", " now"]),
        ("qwen2", "a\n\n b(c", ["a", "\n\n", " b", "(c"]),
        ("llama-bpe", "I'LL pay 1234$  now", ["I", "'LL", " pay", " ", "123", "4", "$", " ", " now"]),
        ("tekken", "getHTTPResponse 1234", ["get", "HTTPResponse", " ", "1", "2", "3", "4"]),
        ("gpt-4o", "getHTTPResponse's 1234", ["get", "HTTPResponse's", " ", "123", "4"]),
        ("deepseek-coder", "a 12\nb", ["a", " ", "1", "2", "\n", "b"]),
        ("deepseek-v3", "x 1234 中文a", ["x", " ", "123", "4", " ", "中文", "a"]),
        ("default", "ab,12345 c", ["ab", ",", "123", "45", " c"]),
        ("qwen35", "नमस्ते 12", ["नमस्ते", " ", "1", "2"]),
        ("kimi-k2", "中文Hello世界 iPhone's 1234", ["中文", "Hello", "世界", " i", "Phone's", " ", "123", "4"]),
        ("gpt-4o", "中文Hello世界", ["中文Hello世界"]),
        ("deepseek-llm", "x  123\nЖук，好a  ", ["x", "  ", "123", "\n", "Жук", "，", "好", "a", "  "]),
        ("falcon", "a`b 12345 x", ["a", "`", "b", " ", "123", "45", " x"]),
        ("seed-coder", "a !!\n\nb 12", ["a", " !!", "\n\n", "b", " ", "1", "2"]),
        ("hunyuan-dense", "x 1234 中文a", ["x", " ", "123", "4", " ", "中文", "a"]),
        ("viking", "ab, cd 12", ["ab", ",", " cd", " ", "1", "2"]),
        ("superbpe", "1234567", ["1", "234", "567"]),
        ("tiny_aya", "1234567", ["1", "234", "567"]),
        ("minicpm5", "a 12345 it's", ["a", " ", "123", "45", " it", "'s"]),
        ("exaone-moe", "ab cd  e1", ["ab cd", " ", " e", "1"]),
        ("jais-2", "a      b", ["a", "    ", " ", " b"]),
        ("youtu", "안녕하세요 Hello 12，x", ["안녕하세요", " Hello", " ", "1", "2", "，", "x"]),
        ("laguna", "a\n\n b", ["a", "\n\n", " b"]),
    ],
)
def test_pre_tokenizers_cut_where_the_originals_do(pre: str, text: str, expected: list[str]) -> None:
    assert pieces(pre, text) == expected


# The names that llama.cpp's llama-vocab.cpp tells apart.
LLAMA_CPP = """
default minicpm5 llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano deepseek-llm
deepseek-coder deepseek-v3 spark2_5 youtu falcon mpt starcoder gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es
jina-v2-de a.x-4.0 mellum
modern-bert jais-2 gemma4 granite-embed-multi-311m sarvam-moe jina-v1-en jina-v2-code roberta-bpe
whitespace refact command-r qwen2 deepseek-r1-qwen kormo f2llmv2 qwen35 stablelm2 olmo dbrx smaug-bpe poro-chat glm4
chatglm-bpe viking jais tekken smollm codeshell bloom gpt3-finnish exaone exaone4 exaone-moe chameleon minerva-7b megrez
gpt-4o llama4 kanana2 talkie granite-embed-multi-97m tiny_aya cohere2moe superbpe trillion granite-docling bailingmoe
bailingmoe2 llada-moe seed-coder hunyuan hunyuan-dense hy_v4 joyai-llm kimi-k2 ufakzeka grok-2 afmoe laguna minimax-m2
solar-open mellum2
"""


@pytest.mark.parametrize("pre", LLAMA_CPP.split())
def test_every_name_is_known_or_refused_by_name(pre: str) -> None:
    if pre in REFUSED:
        with pytest.raises(UnsupportedModelError, match=rf"{pre}.*{REFUSED[pre][:20]}"):
            pieces(pre, "")
    else:
        text = "Zoë's 12345 words,\n\n  中文 <b>\t"
        assert "".join(pieces(pre, text)) == text


def test_a_file_that_names_none_says_so(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", pre=None)
    with open_checkpoint(str(tmp_path / "m.gguf")) as checkpoint:
        assert checkpoint.notes == (NO_PRE,)
    write_gguf(tmp_path / "m.gguf", pre="qwen2")
    with open_checkpoint(str(tmp_path / "m.gguf")) as checkpoint:
        assert checkpoint.notes == ()


def test_merges_are_ignored_for_words_that_are_tokens() -> None:
    tokens = {**dict(enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))), 256: "ab", 257: "abc"}
    for pre, expected in (("llama-bpe", ["abc"]), ("qwen2", ["ab", "c"])):
        rebuilt = Tokenizer.from_buffer(build_byte_level_bpe(tokens, ["a b"], pre))
        assert rebuilt.encode("abc").tokens == expected


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"tokenizer.ggml.pre": "novel-bpe"}, "pre-tokenizer 'novel-bpe' of this model is none of the"),
        ({"tokenizer.ggml.pre": "qwen-2"}, "similar are qwen2"),
        ({"tokenizer.ggml.model": "bert"}, "of kind 'bert'"),
        ({"tokenizer.ggml.merges": None}, "no tokenizer.ggml.merges"),
        ({"tokenizer.ggml.merges": ["a  b"]}, "A merge of the tokenizer is 'a  b'"),
        ({"tokenizer.ggml.merges": ["zz yy"]}, "do not fit its vocabulary"),
        ({"tokenizer.ggml.tokens": None}, "no tokenizer.ggml.tokens"),
        ({"tokenizer.ggml.tokens": ["a", "a"]}, "a token twice"),
        ({"tokenizer.ggml.token_type": np.ones(1, np.int32)}, "not an array of 2 numbers"),
    ],
)
def test_damaged_or_unknown_tokenizers(change: dict[str, Any], match: str) -> None:
    metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.merges": []}
    metadata = {key: value for key, value in (metadata | change).items() if value is not None}
    with pytest.raises((CheckpointError, UnsupportedModelError), match=match):
        build_tokenizer(metadata)


def test_special_tokens_from_metadata() -> None:
    base = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": ["a", "<|begin|>", "<|eot_id|>", "<|eom_id|>", "<|end_of_text|>"],
        "tokenizer.ggml.token_type": np.array([1, 3, 3, 3, 3], np.int32),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 4,
    }
    special = read_special_tokens(base)
    assert special.add_bos  # Llama 3's tokenizer puts it in front
    assert special.eos_token_ids == (4, 2, 3)
    assert special.pad_token_id is None
    assert not read_special_tokens(base | {"tokenizer.ggml.add_bos_token": False}).add_bos
    assert not read_special_tokens(base | {"tokenizer.ggml.pre": "qwen2"}).add_bos
    with pytest.raises(CheckpointError, match="eos_token_id is 17"):
        read_special_tokens(base | {"tokenizer.ggml.eos_token_id": 17})
    harmony = ["a", "<|return|>", "<|end|>", "<|call|>", "b"]  # gpt-oss ends its reasoning with <|end|>, too
    assert read_special_tokens(base | {"tokenizer.ggml.tokens": harmony, "tokenizer.ggml.eos_token_id": 1}
                               ).eos_token_ids == (1,)  # fmt: skip
    settings_ = read_generation_config({"general.sampling.temp": 0.6, "general.sampling.top_k": 20}, special)
    assert settings_ == {"temperature": 0.6, "top_k": 20, "do_sample": True, "eos_token_id": [4, 2, 3]}


# ---- SentencePiece ----


def spm_metadata(*, prefix: bool = True) -> dict[str, Any]:
    """A vocabulary with bytes, letters, and pieces whose scores fall with the rank of their merge."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    pieces_ = sorted(trained.get_vocab(), key=trained.get_vocab().__getitem__)
    pieces_ = sorted(pieces_, key=lambda piece: len(piece) == 1)  # as SentencePiece: letters last
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces_, "<mark>"]
    types = [2, 3, 3, *([6] * 256), *([1] * len(pieces_)), 4]
    scores = [0.0] * 259 + [-float(i) for i in range(len(pieces_))] + [0.0]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        "tokenizer.ggml.add_space_prefix": prefix,
    }


def spm_reference(metadata: dict[str, Any], text: str) -> list[int]:
    """SentencePiece's BPE as defined: join the best-scoring neighbours, the leftmost first; the rest as bytes."""
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = {token: i for i, token in enumerate(tokens) if metadata["tokenizer.ggml.token_type"][i] == 1}
    if not text:
        return []
    symbols = list((" " if metadata["tokenizer.ggml.add_space_prefix"] else "") + text)
    symbols = [symbol.replace(" ", "▁") for symbol in symbols]
    while True:
        best = None
        for i in range(len(symbols) - 1):
            joined = ids.get(symbols[i] + symbols[i + 1])
            if joined is not None:
                score = metadata["tokenizer.ggml.scores"][joined]
                if best is None or score > best[0]:
                    best = (score, i)
        if best is None:
            break
        symbols[best[1] : best[1] + 2] = [symbols[best[1]] + symbols[best[1] + 1]]
    found = []
    for symbol in symbols:
        found += [ids[symbol]] if symbol in ids else [tokens.index(f"<0x{b:02X}>") for b in symbol.encode()]
    return found


SPM = {prefix: spm_metadata(prefix=prefix) for prefix in (True, False)}
SPM_TOKENIZERS = {prefix: Tokenizer.from_buffer(build_tokenizer(metadata)) for prefix, metadata in SPM.items()}


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="the apls3n.Aé \n", max_size=40), prefix=st.booleans())
def test_sentencepiece_ids(text: str, prefix: bool) -> None:
    rebuilt = SPM_TOKENIZERS[prefix]
    ids = rebuilt.encode(text, add_special_tokens=False).ids
    assert ids == spm_reference(SPM[prefix], text)
    assert rebuilt.decode(ids) == text


def test_a_vocabulary_of_gemma_4_has_its_own_merges() -> None:
    """The ids of tokenizers' own BPE with these merges, whose order is not that of the scores; the beginning always."""
    vocab = {"<unk>": 0, "<bos>": 1, "<eos>": 2, "<turn|>": 3} | {f"<0x{b:02X}>": 4 + b for b in range(256)}
    pieces_ = ["\u2581", "a", "b", "c", "\n", "bc", "ab", "\u2581a", "abc", "\n\n"]
    vocab |= {piece: 260 + place for place, piece in enumerate(pieces_)}
    merges = ["b c", "\u2581 a", "a b", "a bc", "\n \n"]
    metadata = {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": list(vocab),
        "tokenizer.ggml.scores": np.full(len(vocab), -1000, np.float32),
        "tokenizer.ggml.token_type": np.array([2, 3, 3, 3, *[6] * 256, *[1] * len(pieces_)], np.int32),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.ggml.add_bos_token": False,
    }
    rebuilt = Tokenizer.from_buffer(build_tokenizer(metadata))
    bpe = models.BPE(vocab, [tuple(merge.split(" ")) for merge in merges], unk_token="<unk>", byte_fallback=True)
    original = Tokenizer(bpe)
    for text in ("abc ab abca", "cab\n\n\nbc a", "é abc"):
        expected = original.encode(text.replace(" ", "\u2581")).ids
        assert rebuilt.encode(text, add_special_tokens=False).ids == expected
        assert rebuilt.decode(expected) == text
    special = read_special_tokens(metadata)
    assert special.add_bos
    assert special.eos_token_ids == (2, 3)
    with pytest.raises(CheckpointError, match="'a x', which its vocabulary has no tokens for"):
        build_tokenizer(metadata | {"tokenizer.ggml.merges": ["a x"]})


def test_sentencepiece_special_tokens() -> None:
    rebuilt = SPM_TOKENIZERS[True]
    ids = rebuilt.encode("<s>the<mark>the</s>").ids
    word = rebuilt.encode("the").ids
    mark = SPM[True]["tokenizer.ggml.tokens"].index("<mark>")
    assert ids == [1, *word, mark, *word, 2]
    special = read_special_tokens(SPM[True])
    assert (special.bos_token, special.eos_token, special.add_bos) == ("<s>", "</s>", True)
    assert special.eos_token_ids == (2,)


def test_runs_of_spaces_listed_as_user_tokens() -> None:
    """Gemma lists them in the form they have in text; they still have to win over single spaces."""
    metadata = spm_metadata(prefix=False)
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], "  ", "    "]
    metadata["tokenizer.ggml.scores"] = np.append(metadata["tokenizer.ggml.scores"], [1.0, 1.0]).astype(np.float32)
    metadata["tokenizer.ggml.token_type"] = np.append(metadata["tokenizer.ggml.token_type"], [4, 4]).astype(np.int32)
    rebuilt = Tokenizer.from_buffer(build_tokenizer(metadata))
    two, four = len(metadata["tokenizer.ggml.tokens"]) - 2, len(metadata["tokenizer.ggml.tokens"]) - 1
    assert rebuilt.encode("a" + " " * 6 + "a").ids[1:3] == [four, two]
    assert rebuilt.decode(rebuilt.encode("a      a").ids) == "a      a"


def test_sentencepiece_without_bytes_or_scores() -> None:
    metadata = spm_metadata()
    with pytest.raises(CheckpointError, match=r"no tokenizer.ggml.scores"):
        build_tokenizer({key: value for key, value in metadata.items() if not key.endswith("scores")})
    tokens = [token.replace("<0x41>", "<zz>") for token in metadata["tokenizer.ggml.tokens"]]
    with pytest.raises(CheckpointError, match="lacks 1 byte tokens, such as <0x41>"):
        build_tokenizer(metadata | {"tokenizer.ggml.tokens": tokens})


def test_agrees_with_transformers(tmp_path: Path) -> None:
    """transformers' own conversion of the same file gives the same ids where it knows the pre-tokenizer."""
    transformers = pytest.importorskip("transformers")
    write_gguf(tmp_path / "m.gguf", "qwen2", pre="qwen2")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    ours = load(tmp_path / "m.gguf")
    for text in SAMPLES[:6]:
        assert ours.encode(text, add_special_tokens=False).ids == theirs.encode(text, add_special_tokens=False)


def test_vocabulary_larger_than_the_embedding(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", config=LLAMA | {"vocab_size": 300})
    with pytest.raises(CheckpointError, match=r"'<think>' with id 300, but model.embed_tokens.weight has 300 rows"):
        open_checkpoint(str(tmp_path / "m.gguf"))


REAL = catalog.location(catalog.find("smollm2-135m"))  # type: ignore[arg-type]


@pytest.mark.skipif(not REAL.exists(), reason="needs: edgedistill models pull smollm2-135m")
def test_smollm2() -> None:
    with open_checkpoint("smollm2-135m") as checkpoint:
        rebuilt = Tokenizer.from_buffer(checkpoint.tokenizer_json)
        special = checkpoint.special_tokens
        assert checkpoint.config["model_type"] == "llama"
        assert (checkpoint.config["rms_norm_eps"], checkpoint.config["rope_theta"]) == (1e-5, 1e5)
        assert "SmolLM" in (checkpoint.chat_template or "")
    assert (special.bos_token, special.eos_token, special.pad_token_id) == ("<|im_start|>", "<|im_end|>", 2)
    assert rebuilt.encode("<|im_start|>user\nHello<|im_end|>").ids == [1, 4093, 198, 19556, 2]
    assert rebuilt.encode("2024").tokens == ["2", "0", "2", "4"]
    for text in SAMPLES:
        assert rebuilt.decode(rebuilt.encode(text).ids, skip_special_tokens=False) == text
