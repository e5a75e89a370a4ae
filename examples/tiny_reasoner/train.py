"""Train tiny-reasoner: `python examples/tiny_reasoner/train.py --out DIR`.

Writes a Hugging Face model directory. A checkpoint in DIR/checkpoint.pt lets an interrupted run continue where it
stopped; a finished directory is left without one.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from data import Batch, chunk
from model import ModelConfig, Qwen3
from safetensors.torch import save_file
from tokenizer import END, END_OF_TEXT, corpus, save_tokenizer, train_tokenizer
from tokenizers import Tokenizer
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights. Token counts are padded positions seen by the model."""

    seed: int = 7
    total_tokens: int = 14_400_000
    batch_tokens: int = 2560
    warmup_tokens: int = 200_000
    decay_share: float = 0.6
    muon_lr: float = 8e-3
    adam_lr: float = 3e-3
    weight_decay: float = 0.01
    clip: float = 1.0


def rate(recipe: Recipe, seen: int) -> float:
    """Warmup, stable, then linear decay to zero over the last `decay_share` of the tokens."""
    decay = recipe.total_tokens * recipe.decay_share
    return max(0.0, min(1.0, (seen + 1) / recipe.warmup_tokens, (recipe.total_tokens - seen) / decay))


def optimizers(model: Qwen3, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the embedding and the norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if not (p.ndim == 2 and "embed" not in n)]
    return [
        torch.optim.Muon(matrices, lr=recipe.muon_lr, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=recipe.adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def loss_of(model: Qwen3, batch: Batch) -> Tensor:
    """Mean cross-entropy in nats over the positions that have a target."""
    flat = batch.targets.reshape(-1)
    chosen = (flat != -100).nonzero().squeeze(1)
    with torch.autocast(batch.tokens.device.type, torch.bfloat16):  # twice as fast on a CPU with avx512_bf16
        hidden, _ = model(batch.tokens)
        logits = model.logits(hidden.flatten(0, 1)[chosen])
    return F.cross_entropy(logits.float(), flat[chosen])


def save_model(model: Qwen3, tokenizer: Tokenizer, out: Path) -> None:
    """Write config.json, generation_config.json, model.safetensors and the tokenizer files."""
    out.mkdir(parents=True, exist_ok=True)
    eos, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(END_OF_TEXT)
    config = model.config.hf_config(eos_token_id=eos, pad_token_id=pad)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    generation = {
        "bos_token_id": pad,
        "do_sample": True,
        "eos_token_id": [eos, pad],
        "pad_token_id": pad,
        "temperature": 0.6,
        "top_k": 20,
        "top_p": 0.95,
    }
    (out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")
    state = {name: tensor.detach().float().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # safetensors makes it private, which an installed package would keep
    save_tokenizer(tokenizer, out)


def keep_freed_memory() -> None:
    """Tell glibc to reuse freed buffers: batches of ever-changing shape otherwise spend a third of the time in mmap."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc: slower, nothing else
        return
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    mallopt(m_mmap_max, 0)
    mallopt(m_trim_threshold, 2**31 - 1)


def train(recipe: Recipe, out: Path, *, threads: int | None, minutes_per_save: float = 2.0) -> None:
    """Run the recipe, resuming from `out`/checkpoint.pt where there is one."""
    if threads:
        torch.set_num_threads(threads)
    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():  # its token ids are those of the tokenizer beside it
        tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    else:
        tokenizer = train_tokenizer(corpus(recipe.seed, 30_000))
    model = Qwen3(ModelConfig(vocab_size=tokenizer.get_vocab_size())).to(device)
    optims = optimizers(model, recipe)
    seen, learned, step, first, spent = 0, 0, 0, 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        for optim, saved in zip(optims, state["optims"], strict=True):
            optim.load_state_dict(saved)
        seen, learned, step, first, spent = (state[k] for k in ("seen", "learned", "step", "first", "spent"))
    bases = [[group["lr"] for group in o.param_groups] for o in optimizers(model, recipe)]
    started = saved_at = time.monotonic()
    average: float | None = None
    while seen < recipe.total_tokens:
        for drawn in chunk(tokenizer, recipe.seed, first, recipe.batch_tokens):
            batch = Batch(drawn.tokens.to(device), drawn.targets.to(device))
            scale = rate(recipe, seen)
            for optim, lrs in zip(optims, bases, strict=True):
                for group, base in zip(optim.param_groups, lrs, strict=True):
                    group["lr"] = base * scale
            loss = loss_of(model, batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            for optim in optims:
                optim.step()
                optim.zero_grad()
            seen += batch.tokens.numel()
            learned += int((batch.targets != -100).sum())
            step += 1
            average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
            if step % 50 == 0:
                total = spent + time.monotonic() - started
                print(
                    f"step {step} tokens {seen} loss {average:.4f} rate {scale:.3f} {seen / total:.0f} tok/s",
                    flush=True,
                )
        first += 1
        if time.monotonic() - saved_at > 60 * minutes_per_save or seen >= recipe.total_tokens:
            saved_at = time.monotonic()
            state = {
                "model": model.state_dict(),
                "optims": [o.state_dict() for o in optims],
                **{"seen": seen, "learned": learned, "step": step, "first": first},
                "spent": spent + time.monotonic() - started,
            }
            torch.save(state, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
            save_model(model, tokenizer, out)
    save_model(model, tokenizer, out)
    record = {
        **asdict(recipe),
        "steps": step,
        "conversations": first * 1024,
        "tokens_seen": seen,
        "tokens_learned": learned,
        "hours": round((spent + time.monotonic() - started) / 3600, 2),
        "device": str(device),
        "torch": torch.__version__,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    (out / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    checkpoint.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory for the model")
    parser.add_argument("--total-tokens", type=int, default=Recipe().total_tokens, help="length of the run")
    parser.add_argument("--muon-lr", type=float, default=Recipe().muon_lr)
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    parser.add_argument("--threads", type=int, default=None, help="torch threads (default: torch decides)")
    args = parser.parse_args()
    recipe = Recipe(seed=args.seed, total_tokens=args.total_tokens, muon_lr=args.muon_lr)
    train(recipe, args.out, threads=args.threads)


if __name__ == "__main__":
    main()
