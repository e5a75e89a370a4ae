"""This runtime beside llama.cpp, OpenVINO GenAI and onnxruntime-genai: speed, load and memory on the same weights.

    python bench/peers.py [--models smollm2-135m qwen3-0.6b qwen3-1.7b qwen3-4b] [--rounds 5] [--quick]

The peers are built in an environment of their own (--env); nothing of theirs is installed here. Every engine's turn is
a process of its own (peers_turn.py), all engines in turn in every round, in alternating order: what counts is the ratio
within a round, of which the median and the range are given. Weights: SmolLM2-135M dithered off its 4-bit grid, and
random ones of Qwen3's shapes, for speed alone. Ours are a bundle in int4-b32 and the default export (without
calibration, which changes no shape); llama.cpp and OpenVINO read a Q4_0 GGUF, llama.cpp a Q4_K_M one too, and
onnxruntime-genai our int4-b32 bundle. Private memory is anonymous memory over that of the process before loading; the
peak is the process's. Beside decode stands the roofline: bandwidth of memory, measured by this program, over the bytes
of the weights file. An engine that cannot be installed, or that fails, is said and left out. Where other work runs,
threads that wait for each other make times say nothing: --processor-time counts the seconds of a single thread on the
processor.

llama-cpp-python is compiled where there is no wheel; --llama-wheel takes that of llama-cpp-py-sync instead, which is
built for AVX2 (and needs glibc 2.38).

On a processor with AVX-512 the same run shows what one with AVX2 does:

    gcc -O2 -shared -fPIC -o avx2_only.so bench/avx2_only.c
    CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON" \\
        python bench/peers.py --env peers-avx2 --preload ./avx2_only.so

where CPUID can be made to fault (Intel's); bench/avx2_only.py is for the others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from make_checkpoint import SHAPES, make_checkpoint
from originals import original
from quality_gguf import qwen3_gguf

from edgedistill import export
from edgedistill.bundle.bundle import MODEL, WEIGHTS
from edgedistill.runtime.session import physical_cores
from edgedistill.system.cgroup import available_memory
from edgedistill.system.hardware import memory_bandwidth
from edgedistill.system.processor import read_processor

PEERS = ("llama-cpp-python", "openvino-genai", "onnxruntime-genai")
LLAMA_WHEEL = "llama-cpp-py-sync"
OURS, LLAMA, OPENVINO, GENAI = "edgedistill", "llama.cpp", "OpenVINO", "onnxruntime-genai"
OURS_DEFAULT, OURS_W8A8, LLAMA_K = f"{OURS}, default", f"{OURS}, w8a8", f"{LLAMA}, Q4_K_M"
FORMAT = "int4-b32"
MODELS = ("smollm2-135m", *(name for name in ("qwen3-0.6b", "qwen3-1.7b", "qwen3-4b") if name in SHAPES))
# The longest leaves room for the reply in SmolLM2's 8,192 tokens.
CONTEXTS, BATCHES = (64, 256, 1024, 8064), (1, 2, 4, 8, 16)
QUICK_CONTEXTS, QUICK_BATCHES = (64, 256), (1, 4)

Turn = dict[str, Any]


def say(text: str) -> None:
    """A line about what happens now."""
    sys.stderr.write(text + "\n")


def environment(directory: Path, llama: str = PEERS[0]) -> Path:
    """The Python of the peers' environment, with every peer that can be installed; the others are said."""
    python = directory / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(directory)], check=True)
    for peer in (llama, *PEERS[1:]):
        stamp = directory / f".{peer}"
        if stamp.exists():
            continue
        say(f"install {peer} into {directory}{' (compiled: some ten minutes)' if peer == PEERS[0] else ''}")
        done = subprocess.run([str(python), "-m", "pip", "install", "--quiet", peer], check=False)
        if done.returncode:
            say(f"  {peer} could not be installed: it is left out")
        else:
            stamp.touch()
    return python


def weights(name: str, python: Path, args: argparse.Namespace) -> dict[str, Path]:
    """What every row of the table loads for ``name``; a row's engine is what its name begins with."""
    work, context = args.work, max(args.contexts) + 128
    if name in SHAPES:
        source, full = work / name, work / f"{name}-bf16.gguf"
        if not source.exists():
            say(f"make {name}")
            make_checkpoint(source, SHAPES[name])
    else:
        source = full = Path(original(name, work))
    found = {}
    rows = {OURS: FORMAT, OURS_DEFAULT: None} | ({OURS_W8A8: "w8a8"} if args.w8a8 else {})
    for row, formats in rows.items():
        found[row] = bundle = work / f"{name}-{formats or 'default'}-{context}"
        if not bundle.exists():
            say(f"export {bundle.name}")
            export(str(source), bundle, format=formats, context=context, calibrate=False, distance=False, verify=False)
    found[GENAI] = found[OURS]
    for row, kind in ((LLAMA, "Q4_0"), (LLAMA_K, "Q4_K_M")):
        file = work / f"{name}-{kind}.gguf"
        if not file.exists():
            if name in SHAPES:
                qwen3_gguf(source, full)
            say(f"quantize {file.name}")
            code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); from pathlib import Path; "
            code += "from quality_gguf import quantized; "
            code += f"quantized(Path({str(full)!r}), Path({str(file)!r}), {kind!r}, {args.threads})"
            done = subprocess.run([str(python), "-c", code], check=False, capture_output=True, text=True)
            if done.returncode:
                say(f"  llama.cpp cannot quantize here, so its files are left out: {last_line(done.stderr)}")
                return found
        found[row] = file
    return found | {OPENVINO: found[LLAMA]}


def last_line(text: str) -> str:
    """What a program said last."""
    return (text.strip().splitlines() or ["no message"])[-1]


def file_bytes(path: Path) -> int:
    """Bytes of a GGUF, or of a bundle's graph and weights."""
    if path.is_file():
        return path.stat().st_size
    return sum((path / name).stat().st_size for name in (MODEL, WEIGHTS))


def turn(row: str, model: Path, python: Path, args: argparse.Namespace) -> Turn | None:
    """One process; None where the engine fails, which is said."""
    engine = row.partition(",")[0]
    command = [sys.executable if engine == OURS else str(python), str(Path(__file__).with_name("peers_turn.py"))]
    command += [engine, str(model), "--threads", str(args.threads), "--new-tokens", str(args.new_tokens)]
    command += ["--context", *map(str, args.contexts), "--batch", *map(str, args.batches)]
    command += ["--processor-time"] if args.processor_time else []
    variables = dict(os.environ) | ({"LD_PRELOAD": str(args.preload.resolve())} if args.preload else {})
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    if done.returncode:
        say(f"  {row} failed: {last_line(done.stderr)}")
        return None
    found: Turn = json.loads(done.stdout.splitlines()[-1])
    return found


def measure(models: dict[str, Path], python: Path, args: argparse.Namespace) -> list[dict[str, Turn]]:
    """All engines in turn, in alternating order; the engines that failed are missing in a round."""
    rounds = []
    for index in range(args.rounds):
        order = sorted(models, reverse=bool(index % 2))
        turns = {engine: turn(engine, models[engine], python, args) for engine in order}
        rounds.append({engine: one for engine, one in turns.items() if one is not None})
        say(f"  round {index + 1} of {args.rounds}")
    return rounds


def spread(values: list[float], digits: int = 0) -> str:
    """Median and range."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})" if values else "-"


def tables(name: str, rounds: list[dict[str, Turn]], models: dict[str, Path], bandwidth: float | None) -> str:
    """Markdown: absolute medians, and ours over each engine's within the rounds."""
    contexts = list(next(iter(rounds[0].values()))["prefill"])
    head = ["engine", *(f"prefill {c}" for c in contexts), *(f"decode at {c}" for c in contexts)]
    lines = [f"### {name}", "", "| " + " | ".join([*head, "load s", "file MB", "private MB", "peak MB"]) + " |"]
    lines.append("|---|" + "---:|" * (len(head) + 3))
    ratios = []
    for engine, model in models.items():
        turns = [one[engine] for one in rounds if engine in one]
        if not turns:
            continue
        cells = [spread([t[kind][c] for t in turns]) for kind in ("prefill", "decode") for c in contexts]
        cells += [spread([t["load"] for t in turns], 2), f"{file_bytes(model) / 1e6:.0f}"]
        cells += [spread([t[kind] / 1e6 for t in turns]) for kind in ("private", "peak")]
        lines.append(f"| {', '.join([turns[0]['version'], *engine.split(', ')[1:]])} | " + " | ".join(cells) + " |")
        for ours in () if engine.startswith(OURS) else [row for row in (OURS, OURS_W8A8) if row in models]:
            both = [one for one in rounds if engine in one and ours in one]
            cells = [
                spread([one[ours][kind][c] / one[engine][kind][c] for one in both], 2)
                for kind in ("prefill", "decode")
                for c in contexts
            ]
            ratios.append(f"| {ours} / {engine} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| ratio within a round | " + " | ".join(head[1:]) + " |",
        "|---|" + "---:|" * (len(head) - 1),
        *ratios,
    ]
    batches = [one[OURS]["batch"] for one in rounds if OURS in one]
    if batches and batches[0]:
        cells = [f"{rows}: {spread([one[rows] for one in batches])}" for rows in batches[0]]
        lines += ["", f"Tokens per second in all by batch size, edgedistill: {'; '.join(cells)}."]
    if bandwidth:
        size = file_bytes(models[OURS])
        bound = f"{bandwidth:.1f} GB/s over {size / 1e6:.0f} MB are {bandwidth * 1e9 / size:.0f} tokens/s"
        lines += ["", f"Roofline: {bound}."]
    return "\n".join(lines)


def machine(args: argparse.Namespace) -> str:
    """What it ran on."""
    found = read_processor(Path("/"), platform.system(), platform.machine().lower())
    masked = f", under {args.preload.name}" if args.preload else ""
    load = f"; load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    isa = " ".join(found.isa or ())
    return (
        f"{found.name} ({isa}){masked}, {args.threads} threads, {platform.system()}, {time.strftime('%Y-%m-%d')}{load}"
    )


def main() -> None:
    """Build, measure, write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contexts", type=int, nargs="+", help="tokens of the prompts (default: 64 to 8064)")
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--llama-wheel", action="store_true", help="llama.cpp from a wheel for AVX2, not compiled")
    parser.add_argument("--w8a8", action="store_true", help="our W8A8 bundle too: larger, and faster to read prompts")
    parser.add_argument("--env", type=Path, default=Path("bench-results/peers-env"), help="the peers' environment")
    parser.add_argument("--work", type=Path, default=Path("bench-results/peers"))
    parser.add_argument(
        "--processor-time", action="store_true", help="one thread's seconds on the processor: where other work runs"
    )
    parser.add_argument("--preload", type=Path, help="library that every engine is started with (bench/avx2_only.c)")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks-peers.md"), help="the page to write")
    parser.add_argument("--quick", action="store_true", help="SmolLM2, short contexts, three rounds: some minutes")
    args = parser.parse_args()
    args.threads = 1 if args.processor_time else args.threads
    contexts, args.batches = (QUICK_CONTEXTS, QUICK_BATCHES) if args.quick else (CONTEXTS, BATCHES)
    args.contexts = tuple(args.contexts or contexts)
    names = ["smollm2-135m"] if args.quick else args.models
    args.rounds = min(args.rounds, 3) if args.quick else args.rounds
    args.work.mkdir(parents=True, exist_ok=True)
    python = environment(args.env, LLAMA_WHEEL if args.llama_wheel else PEERS[0])
    # What else the machine does takes bandwidth too, and no clock of one process can tell.
    bandwidth = None if args.processor_time else memory_bandwidth(args.threads, available_memory())
    parts = [
        "# Next to other engines",
        f"`python bench/peers.py{' --quick' if args.quick else ''}`: {machine(args)}. Tokens per second"
        f"{' of processor time' if args.processor_time else ''}; median and range of {args.rounds} rounds, all engines "
        "in turn; bench/peers.py says what is compared.",
    ]
    for name in names:
        say(name)
        models = weights(name, python, args)
        parts.append(tables(name, measure(models, python, args), models, bandwidth))
        args.out.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    sys.stdout.write(args.out.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
