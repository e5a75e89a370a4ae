"""tiny-reasoner as a GGUF file with its vocabulary, and llama.cpp's own server of it, where one is installed.

``LLAMA_SERVER`` names the program; otherwise it is looked for on the path.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file
from waiting import PATIENCE_S

from edgedistill.catalog.builtin import resolve

PROGRAM = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")


def reasoner_gguf(target: Path) -> Path:
    """tiny-reasoner in float32. Its pre-tokenizer differs from GPT-2's in contractions and line breaks only."""
    source = resolve("tiny-reasoner")
    assert source is not None
    config = json.loads((source / "config.json").read_text())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(target, "qwen3")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    for add in (writer.add_key_length, writer.add_value_length, writer.add_rope_dimension_count):
        add(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    added = {entry["content"]: entry for entry in tokenizer["added_tokens"]}
    ids = tokenizer["model"]["vocab"] | {content: entry["id"] for content, entry in added.items()}
    texts = sorted(ids, key=ids.__getitem__)
    kinds = [
        gguf.TokenType.NORMAL if text not in added
        else gguf.TokenType.CONTROL if added[text]["special"] else gguf.TokenType.USER_DEFINED
        for text in texts
    ]  # fmt: skip
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_chat_template((source / "chat_template.jinja").read_text())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    for name, values in load_file(source / "model.safetensors").items():
        mapped = names.get_name(name, try_suffixes=(".weight",))
        assert mapped is not None, name
        writer.add_tensor(mapped, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@contextmanager
def llama_server(model: Path) -> Iterator[str]:
    """The address of a server of ``model`` with one thread."""
    assert PROGRAM is not None
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = str(found.getsockname()[1])
    command = [PROGRAM, "--model", str(model), "--alias", "tiny", "--host", "127.0.0.1", "--port", port]
    command += ["--threads", "1", "--parallel", "4", "--ctx-size", "4096"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            end = time.monotonic() + PATIENCE_S
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                        break
                assert process.poll() is None, "llama-server ended"
                assert time.monotonic() < end, "llama-server does not listen"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
