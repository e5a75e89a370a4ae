"""Compares hybrid models with an attention model of the same size: decode, prefill and memory by length of the context.

    python bench/hybrid.py [--threads 1] [--rounds 5] [--held 256 4096] [--memory 32768] [--hidden 256] [--quick]

Three random models with matrices of about the same size, in int4: Qwen3's layers, LFM2's (two of three are short
convolutions) and Qwen3.5's (three of four are gated delta rules). Weights are random, and caches are marked as full
without being computed, since neither changes the time of a step. Each round measures all models in turn. With one
thread processor time is measured, which other programs on the machine hardly change.

With ``--memory``, every model really computes so many tokens, in a process of its own, whose private memory is read
before and after: what a long text adds to a process, with copies of states and the kernels' own memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from make_checkpoint import make_checkpoint, tensor_shapes

from edgedistill import export
from edgedistill.runtime.model import Model, open_bundle
from edgedistill.runtime.session import DecoderSession
from edgedistill.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgedistill.runtime.decoder import Decoder

STEPS, CHUNK = 16, 256
FORMAT = "int4-b32-sym-rtn"


def configs(hidden: int, layers: int, context: int) -> dict[str, dict[str, Any]]:
    """The three models by name; the inner size of the MLP makes up for mixers of unequal size."""
    head = 64
    common = {
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": hidden // head, "head_dim": head,
        "num_key_value_heads": hidden // head // 2, "vocab_size": 8192, "max_position_embeddings": context,
        "tie_word_embeddings": True, "eos_token_id": 2, "rms_norm_eps": 1e-6,
    }  # fmt: skip
    return {
        "attention": common | {"model_type": "qwen3", "intermediate_size": 3 * hidden},
        "short convolution": common
        | {
            "model_type": "lfm2",
            "norm_eps": 1e-5,
            "intermediate_size": 3 * hidden - hidden // 4,
            "block_auto_adjust_ff_dim": False,
            "layer_types": ["full_attention" if index % 3 == 2 else "conv" for index in range(layers)],
        },
        "gated delta rule": common
        | {
            "model_type": "qwen3_5_text",
            "intermediate_size": 3 * hidden - 5 * hidden // 8,
            "linear_num_key_heads": hidden // 128,
            "linear_num_value_heads": hidden // 128,
        },
    }


def shapes_of(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a hybrid ``config``."""
    plain = tensor_shapes(config | {"model_type": "qwen3"})
    if config["model_type"] == "qwen3":
        return plain
    hidden, found = config["hidden_size"], {}
    renamed = {
        "input_layernorm": "operator_norm", "post_attention_layernorm": "ffn_norm", "o_proj": "out_proj",
        "q_norm": "q_layernorm", "k_norm": "k_layernorm", "mlp.gate_proj": "feed_forward.w1",
        "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2", "model.norm": "model.embedding_norm",
    }  # fmt: skip
    for name, shape in plain.items():
        index = int(name.split(".")[2]) if ".layers." in name else -1
        lfm2 = config["model_type"] == "lfm2"
        recurrent = config["layer_types"][index] == "conv" if lfm2 and index >= 0 else index >= 0 and (index + 1) % 4
        if recurrent and ".self_attn." in name:
            continue
        own = name
        if lfm2:
            for old, new in renamed.items():
                own = own.replace(old, new)
        found[own] = (2 * shape[0], shape[1]) if not lfm2 and name.endswith("q_proj.weight") else shape
        if recurrent and name.endswith("input_layernorm.weight"):
            layer = name.removesuffix(".input_layernorm.weight")
            mixer = (
                {"in_proj": (3 * hidden, hidden), "conv": (hidden, 1, 3), "out_proj": (hidden, hidden)}
                if lfm2
                else {
                    "in_proj_qkv": (3 * hidden, hidden), "in_proj_z": (hidden, hidden), "conv1d": (3 * hidden, 1, 4),
                    "in_proj_b": (hidden // 128, hidden), "in_proj_a": (hidden // 128, hidden), "norm": (128,),
                    "out_proj": (hidden, hidden), "A_log": (hidden // 128,), "dt_bias": (hidden // 128,),
                }
            )  # fmt: skip
            for part, size in mixer.items():
                suffix = "" if part in ("A_log", "dt_bias") else ".weight"
                found[f"{layer}.{'conv' if lfm2 else 'linear_attn'}.{part}{suffix}"] = size
    return found


def holding(session: DecoderSession, tokens: int) -> Decoder:
    """A decoder whose cache is marked as holding ``tokens`` tokens."""
    decoder = session.decoder()
    decoder.cache.reserve(tokens + CHUNK)
    decoder.cache.lengths[0] = tokens
    return decoder


def rates(decoder: Decoder, tokens: int, clock: Callable[[], float]) -> tuple[float, float]:
    """Tokens/s of one-token steps and of a chunk of a prompt behind ``tokens``."""
    begun = clock()
    for token in range(STEPS):
        decoder.feed([3 + token])
    decode = STEPS / (clock() - begun)
    decoder.cache.lengths[0] = tokens
    begun = clock()
    decoder.feed([3] * CHUNK, exact=True, logits=False)
    prefill = CHUNK / (clock() - begun)
    decoder.cache.lengths[0] = tokens
    return decode, prefill


def private() -> int:
    """Bytes of this process that no file stands for; large caches are anonymous mappings, which count as shared."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon", "RssShmem"))]
    if not found:
        raise SystemExit("memory is measured on Linux only: leave --memory out")
    return sum(found)


def child(path: Path, tokens: int, threads: int) -> dict[str, int]:
    """Private bytes of this process behind the first chunk, and behind ``tokens``."""
    with open_bundle(path, threads=threads) as model:
        assert isinstance(model.session, DecoderSession)
        decoder, found = model.session.decoder(), {}
        for start in range(0, tokens, CHUNK):
            decoder.feed([3 + token % 1000 for token in range(start, min(tokens, start + CHUNK))], exact=True)
            if not start:
                found["before"] = private()
        return found | {"after": private(), "tokens": decoder.length}


def memory_of(path: Path, tokens: int, threads: int) -> dict[str, int]:
    """``child`` in a process of its own."""
    command = [sys.executable, __file__, "--child", str(path), "--memory", str(tokens), "--threads", str(threads)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything, JSON-able."""
    layers, context = (4, 1024) if args.quick else (12, 32768)
    hidden = args.hidden or (256 if args.quick else 1024)
    held = [n for n in args.held if n + CHUNK <= context]
    clock = time.process_time if args.threads == 1 else time.perf_counter
    result: dict[str, Any] = {"threads": args.threads, "context": context, "models": {}}
    with tempfile.TemporaryDirectory(prefix="bench-hybrid-") as root:
        models: dict[str, Model] = {}
        for name, config in configs(hidden, layers, context).items():
            sys.stderr.write(f"making {name}\n")
            source, path = Path(root) / f"{name}-source", Path(root) / name
            make_checkpoint(source, config, shapes=shapes_of(config))
            made = export(source, path, format=FORMAT, context=context, check=False, verify=False)
            models[name] = open_bundle(path, threads=args.threads)
            manifest = made.manifest
            size = manifest.kv_cache.bytes_per_token * context + manifest.model.state_bytes
            result["models"][name] = {"parameters": manifest.parameters, "bytes": size, "speed": {}}
            if args.memory:
                sys.stderr.write(f"{args.memory} tokens of {name}\n")
                result["models"][name]["memory"] = memory_of(path, min(args.memory, context), args.threads)
        for tokens in held:
            sys.stderr.write(f"{tokens} tokens held\n")
            decoders = {}
            for name, model in models.items():
                assert isinstance(model.session, DecoderSession)
                decoders[name] = holding(model.session, tokens)
            found: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
            for _ in range(args.rounds + 1):
                for name, decoder in decoders.items():
                    found[name].append(rates(decoder, tokens, clock))
            for name, pairs in found.items():
                result["models"][name]["speed"][str(tokens)] = [list(values)[1:] for values in zip(*pairs, strict=True)]
    return result


def show(result: dict[str, Any]) -> None:
    """Markdown tables."""
    held = list(next(iter(result["models"].values()))["speed"])
    lines = [f"threads: {result['threads'] or 'all'}; median (least to most) of tokens/s", ""]
    for index, what in enumerate(("decode", "prefill")):
        lines += [f"| {what}, tokens held | {' | '.join(held)} |", "|---" * (len(held) + 1) + "|"]
        for name, model in result["models"].items():
            cells = [model["speed"][tokens][index] for tokens in held]
            row = " | ".join(f"{median(cell):.0f} ({min(cell):.0f} to {max(cell):.0f})" for cell in cells)
            lines.append(f"| {name} | {row} |")
        lines.append("")
    lines += [f"| model | parameters | a sequence of {result['context']} tokens |", "|---|---|---|"]
    for name, model in result["models"].items():
        lines.append(f"| {name} | {model['parameters'] / 1e6:.0f} M | {format_bytes(model['bytes'])} |")
    if all("memory" in model for model in result["models"].values()):
        lines += ["", "| private memory of a process | first chunk | tokens | behind them | more |", "|---" * 5 + "|"]
        for name, model in result["models"].items():
            before, after = model["memory"]["before"], model["memory"]["after"]
            cells = [format_bytes(before), model["memory"]["tokens"], format_bytes(after), format_bytes(after - before)]
            lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    sys.stdout.write("\n".join(lines) + "\n")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--held", type=int, nargs="+", default=[256, 4096, 16384, 32768 - CHUNK], metavar="TOKENS")
    parser.add_argument("--hidden", type=int, help="hidden size (1024)")
    parser.add_argument("--memory", type=int, default=0, metavar="TOKENS", help="measure memory over so many tokens")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="small models and 1024 tokens: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.child:
        sys.stdout.write(json.dumps(child(args.child, args.memory, args.threads)) + "\n")
        return
    result = measure(args)
    show(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
