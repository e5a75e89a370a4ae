"""Makes damaged copies of tiny-reasoner by editing its weights: models with a known fault, to test a gate.

    python bench/twins.py collapsed DIRECTORY

- ``collapsed``: gives one answer, whatever it is asked. Attention and MLP are silenced, so that the next token follows
  from the last one alone, and embedding and head spell one reply.
- ``wrong``: answers with confidence, and wrongly. The head's rows of some digits are swapped and its distributions
  sharpened, so that it reads what it is asked and writes another number.
- ``noisy``: every matrix with Gaussian noise of a given share of its standard deviation: a degradation of known size.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from edgedistill.catalog import builtin as catalog

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Tensors = dict[str, npt.NDArray[np.float32]]

REPLY = "The answer is \\boxed{7}."
EMBEDDING = "model.embed_tokens.weight"
SHARPER = 20.0
SWAPPED = {1: 2, 2: 1, 4: 5, 5: 4}


def collapsed(tensors: Tensors, tokenizer: Tokenizer) -> None:
    """One reply for every question, with probability next to 1."""
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor[:] = 0.0
    chain = [tokenizer.encode("\n").ids[-1], *tokenizer.encode(REPLY).ids, tokenizer.token_to_id("<|im_end|>")]
    if len(set(chain)) < len(chain):
        raise SystemExit(f"{REPLY!r} has a token twice: {chain}")
    embedding = np.zeros_like(tensors[EMBEDDING])
    head = np.zeros_like(embedding)
    for at, (token, following) in enumerate(itertools.pairwise(chain)):
        embedding[token, at] = 1.0
        head[following, at] = 2.0
    tensors[EMBEDDING] = embedding
    tensors["lm_head.weight"] = head
    tensors["model.norm.weight"][:] = 1.0


def wrong(tensors: Tensors, tokenizer: Tokenizer) -> None:
    """Some digits change places when they are written, not when they are read."""
    digits = [tokenizer.encode(str(digit)).ids[-1] for digit in range(10)]
    head = tensors[EMBEDDING].copy()
    head[digits] = head[[digits[SWAPPED.get(digit, digit)] for digit in range(10)]]
    tensors["lm_head.weight"] = head * SHARPER


def noisy(share: float, seed: int = 0) -> Callable[[Tensors, Tokenizer], None]:
    """Noise of ``share`` of the standard deviation of every matrix."""

    def edit(tensors: Tensors, tokenizer: Tokenizer) -> None:  # noqa: ARG001
        generator = np.random.default_rng(seed)
        for name, tensor in tensors.items():
            if tensor.ndim == 2:
                noise = share * tensor.std() * generator.standard_normal(tensor.shape)
                tensors[name] = tensor + noise.astype(np.float32)

    return edit


def make_twin(directory: Path, edit: Callable[[Tensors, Tokenizer], None]) -> Path:
    """Write tiny-reasoner with its weights changed by ``edit``, as a Hugging Face directory."""
    source = catalog.resolve("tiny-reasoner")
    if source is None:
        raise SystemExit("tiny-reasoner is not installed.")
    directory.mkdir(parents=True)
    for name in ("chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, directory / name)
    tensors = {name: tensor.astype(np.float32) for name, tensor in load_file(source / "model.safetensors").items()}
    edit(tensors, Tokenizer.from_file(str(source / "tokenizer.json")))
    config = json.loads((source / "config.json").read_text())
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    (directory / "config.json").write_text(json.dumps(config, indent=2))
    save_file(tensors, directory / "model.safetensors")
    return directory


def main() -> int:
    """Write one twin."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("twin", choices=["collapsed", "wrong", "noisy"])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--share", type=float, default=0.1, help="of noise (default: %(default)s)")
    args = parser.parse_args()
    edits = {"collapsed": collapsed, "wrong": wrong, "noisy": noisy(args.share)}
    print(make_twin(args.directory, edits[args.twin]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
