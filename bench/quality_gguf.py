"""The peer's files: a checkpoint as float32 GGUF, and the quantized GGUFs that llama.cpp makes of it."""

from __future__ import annotations

import ctypes
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from gguf import GGUFWriter

INSTALL = "pip install -e '.[bench]' (builds llama.cpp from source where there is no wheel: needs a C++ compiler)"
FORMATS = {
    "Q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0",
    "Q4_K_S": "LLAMA_FTYPE_MOSTLY_Q4_K_S",
    "Q4_K_M": "LLAMA_FTYPE_MOSTLY_Q4_K_M",
    "Q5_K_M": "LLAMA_FTYPE_MOSTLY_Q5_K_M",
    "Q6_K": "LLAMA_FTYPE_MOSTLY_Q6_K",
    "Q8_0": "LLAMA_FTYPE_MOSTLY_Q8_0",
}


def is_available() -> bool:
    """Whether llama-cpp-python is installed and loads."""
    try:
        import llama_cpp  # noqa: F401
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def quantized(source: Path, target: Path, name: str, threads: int) -> Path:
    """``source`` (float32) in llama.cpp's format ``name``, by its own quantizer without an importance matrix.

    By llama-cpp-python, or by the wheel of llama-cpp-py-sync where that is not installed.
    """
    if target.is_file():
        return target
    partial = target.with_suffix(".partial")
    run = _by_package if is_available() else _by_wheel
    status = run(str(source).encode(), str(partial).encode(), FORMATS[name], threads)
    if status:
        raise SystemExit(f"error: llama.cpp could not make {name} of {source.name} (status {status}).")
    partial.replace(target)
    return target


def _by_package(source: bytes, target: bytes, name: str, threads: int) -> int:
    import llama_cpp

    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, name)
    params.nthread = threads
    return int(llama_cpp.llama_model_quantize(source, target, ctypes.byref(params)))


def _by_wheel(source: bytes, target: bytes, name: str, threads: int) -> int:
    from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

    ffi, lib = get_ffi(), get_lib()
    params = ffi.new("llama_model_quantize_params *", lib.llama_model_quantize_default_params())
    params.ftype = getattr(lib, name)
    params.nthread = threads
    return int(lib.llama_model_quantize(source, target, params))


def tensor_bytes(path: Path) -> int:
    """Bytes of the tensors, without vocabulary and metadata."""
    from gguf import GGUFReader

    return sum(int(tensor.n_bytes) for tensor in GGUFReader(str(path)).tensors)


def qwen3_gguf(directory: Path, target: Path) -> Path:
    """A Qwen3 checkpoint with tied embeddings as GGUF.

    Token ids are fed as they are: its vocabulary is only there to be read. Matrices keep their bfloat16 or become
    float32; vectors are float32, as llama.cpp wants them.
    """
    import gguf
    import torch
    from safetensors import safe_open

    if target.is_file():
        return target
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "qwen3" or not config["tie_word_embeddings"]:
        raise SystemExit(f"error: {directory.name} is {config['model_type']}; expected qwen3 with tied embeddings.")
    partial = target.with_suffix(".partial")
    writer = gguf.GGUFWriter(partial, "qwen3")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    _add_vocabulary(writer, config["vocab_size"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    for shard in sorted(directory.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - no mapping
                mapped = names.get_name(name, try_suffixes=(".weight",))
                if mapped is None:
                    raise SystemExit(f"error: GGUF has no name for the tensor {name}.")
                values = tensors.get_tensor(name)
                if values.dtype == torch.bfloat16 and values.ndim == 2:
                    raw = values.view(torch.uint8).numpy()
                    writer.add_tensor(mapped, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
                else:
                    writer.add_tensor(mapped, values.float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.replace(target)
    return target


def _add_vocabulary(writer: GGUFWriter, size: int) -> None:
    """The bytes, a merge, names, and an end that is a control token: OpenVINO refuses files without."""
    from gguf import TokenType
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = [*sorted(ByteLevel.alphabet()), "Ġt"]
    tokens += [f"<{index}>" for index in range(len(tokens), size)]
    writer.add_vocab_size(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.NORMAL] * (size - 1) + [TokenType.CONTROL])
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(size - 1)
    writer.add_eos_token_id(size - 1)
    writer.add_pad_token_id(size - 1)
    writer.add_chat_template("{% for message in messages %}{{ message.content }}{% endfor %}")
