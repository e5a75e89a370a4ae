"""Write the model card from the measured numbers: `python examples/tiny_reasoner/card.py DIR` (after evaluate.py)."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("card_template.md")


def card(metrics: dict[str, Any], config: dict[str, Any], size: int) -> str:
    """Fill the card. `size` is that of model.safetensors in bytes."""
    training, sampling = metrics["training"], metrics["sampling"]
    rows = [
        f"| {band} | {row['n']} | {row['accuracy']:.1%} | {row['interval'][0]:.1%} to {row['interval'][1]:.1%} "
        f"| {row['median_tokens']:.0f} |"
        for band, row in metrics["thinking"].items()
    ]
    in_range_bands = list(metrics["no_thinking"])
    names = sorted({name for band in in_range_bands for name in metrics["thinking"][band]["families"]})
    families = []
    for name in names:
        found = (metrics["thinking"][band]["families"].get(name) for band in in_range_bands)
        cells = [cell for cell in found if cell is not None]
        count = sum(cell["n"] for cell in cells)
        families.append(f"{name} {sum(cell['n'] * cell['accuracy'] for cell in cells) / count:.1%} (n = {count})")
    spreads = [
        f"| {band} | " + " | ".join(str(n) for n in row["histogram"].values()) + f" | "
        f"{', '.join(f'{q:.2f}' for q in row['majority_share_quartiles'])} | {row['mean_correct_share']:.2f} |"
        for band, row in sampling.items()
    ]
    in_range, outside = metrics["in_range"], metrics["outside"]
    return TEMPLATE.read_text(encoding="utf-8").format(
        parameters=training["parameters"],
        megabytes=size / 1e6,
        vocabulary=config["vocab_size"],
        heldout=10,
        conversations=training["conversations"],
        seen=training["tokens_seen"],
        learned=training["tokens_learned"],
        steps=training["steps"],
        batch=training["batch_tokens"],
        hours=training["hours"],
        device="two shared CPU cores" if training["device"] == "cpu" else "a GPU",
        seed=training["seed"],
        decay=training["decay_share"],
        rows="\n".join(rows),
        in_range=in_range["accuracy"],
        in_low=in_range["interval"][0],
        in_high=in_range["interval"][1],
        in_n=in_range["n"],
        families=", ".join(families),
        no_thinking=", ".join(f"{band} {row['accuracy']:.1%}" for band, row in metrics["no_thinking"].items()),
        declined=outside["rate"],
        declined_n=outside["n"],
        samples=sampling["hard"]["samples"],
        prompts=sampling["hard"]["prompts"],
        sampling="\n".join(spreads),
        between=", ".join(f"{band} {row['between_0.5_and_0.99']:.0%}" for band, row in sampling.items()),
        remark=training.get("remark", ""),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    directory: Path = parser.parse_args().directory
    metrics = json.loads((directory / "metrics.json").read_text(encoding="utf-8"))
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    text = card(metrics, config, (directory / "model.safetensors").stat().st_size)
    (directory / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
