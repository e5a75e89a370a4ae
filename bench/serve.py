"""Throughput of ``edgedistill serve`` at 1, 4 and 16 clients, beside one request at a time and llama.cpp's server.

    make bench-serve
    make bench-serve ARGS="--peer /path/to/llama-server"    # llama.cpp's own
    make bench-serve ARGS="--peer /path/to/python"          # of an environment with llama-cpp-python[server]

All serve the same GGUF file (here exported to a bundle of 4-bit blocks of 32) with the same threads, in processes of
their own that run for the whole benchmark: 16 sequences at a time, one at a time, and the peers. llama-server batches
16 sequences as well; llama-cpp-python's server, a part of that package, answers one request at a time. llama-server is
built from the same source: ``cmake --build build --target llama-server`` in ``vendor/llama.cpp`` of that package's
source distribution.
Every client sends one request after the other; the servers are measured in turn, round by round, so that other load on
the machine affects all. Requests share a system prompt, and each has its own question; replies have a limit of tokens.
A rate is the generated tokens of all clients over the wall time of the round. On a busy machine, tokens per second of
the server's processor time (Linux) are more reliable. The figures are of one machine: measure again before relying on
them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx

from edgedistill import export
from edgedistill.catalog.builtin import resolve
from edgedistill.runtime.session import physical_cores

if TYPE_CHECKING:
    from collections.abc import Iterator

MODEL = "smollm2-135m"
SYSTEM = "You are a helpful assistant who answers questions about everyday things in a few plain sentences. " * 4
WAIT_S = 300.0
PARALLEL = 16
CONTEXT = 2048


@dataclass(frozen=True, slots=True)
class Round:
    """One round: tokens a second of all clients together, median seconds of a request, tokens a second of the server's
    processor time (nan where the system does not tell).
    """

    rate: float
    latency_s: float
    cpu_rate: float


def ask(url: str, number: int, tokens: int) -> tuple[int, float]:
    """One request: generated tokens, seconds."""
    body: dict[str, Any] = {
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": f"Tell me {number + 3} things about the number {number}."},
        ],
        "max_tokens": tokens,
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.95,
        "min_p": 0.05,
        "seed": number,
    }
    started = time.perf_counter()
    response = httpx.post(f"{url}/chat/completions", json=body, timeout=600)
    response.raise_for_status()
    return int(response.json()["usage"]["completion_tokens"]), time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Server:
    """A running server: the address of its API, its process."""

    url: str
    pid: int

    def cpu_s(self) -> float:
        """Processor seconds that its threads have spent; nan where the system does not tell."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return math.nan
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(server: Server, clients: int, requests: int, tokens: int, first: int) -> Round:
    """``clients`` at once, each ``requests`` one after the other, numbered from ``first``."""

    def client(number: int) -> list[tuple[int, float]]:
        return [ask(server.url, first + number * requests + at, tokens) for at in range(requests)]

    started, spent_before = time.perf_counter(), server.cpu_s()
    with ThreadPoolExecutor(clients) as pool:
        done = [one for answers in pool.map(client, range(clients)) for one in answers]
    seconds, spent = time.perf_counter() - started, server.cpu_s() - spent_before
    count = sum(count for count, _ in done)
    return Round(count / seconds, median(spent for _, spent in done), count / spent)


@contextmanager
def running(command: list[str], url: str | None, **variables: str) -> Iterator[Server]:
    """A server once it answers; ``url`` None: it prints its address as JSON."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE if url is None else subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
        env={**os.environ, **variables},
    ) as process:  # fmt: skip
        try:
            if url is None:
                assert process.stdout is not None
                text = ""
                while not text.endswith("}\n"):
                    line = process.stdout.readline()
                    if not line:
                        raise SystemExit(f"error: {command[0]} ended before it served.")
                    text += line
                url = str(json.loads(text)["url"])
            end = time.monotonic() + WAIT_S
            while True:
                try:
                    httpx.get(f"{url}/models", timeout=5).raise_for_status()
                    break
                except httpx.HTTPError:
                    if process.poll() is not None or time.monotonic() > end:
                        raise SystemExit(f"error: {' '.join(command[:3])} does not serve.") from None
                    time.sleep(0.2)
            yield Server(url, process.pid)
        finally:
            process.terminate()


def spread(rates: list[float]) -> str:
    """Median and range."""
    return f"{median(rates):.1f} ({min(rates):.1f} to {max(rates):.1f})"


def peer(program: str, gguf: Path, threads: int) -> tuple[str, list[str], str]:
    """Name, command and address of llama.cpp's server, or of llama-cpp-python's where ``program`` is an interpreter."""
    port = str(free_port())
    url = f"http://127.0.0.1:{port}/v1"
    common = ["--model", str(gguf), "--host", "127.0.0.1", "--port", port]
    if Path(program).name.startswith("llama-server"):
        size = ["--parallel", str(PARALLEL), "--ctx-size", str(PARALLEL * CONTEXT)]
        return "llama-server", [program, *common, *size, "--threads", str(threads)], url
    use = ["--n_ctx", str(CONTEXT), "--n_threads", str(threads), "--n_threads_batch", str(threads)]
    return "llama-cpp-python", [program, "-m", "llama_cpp.server", *common, *use], url


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peer", action="append", default=[], metavar="PROGRAM",
        help="llama-server, or an interpreter with llama-cpp-python[server]; can be given again",
    )  # fmt: skip
    parser.add_argument("--peer-model", type=Path, metavar="GGUF", help="another file of the model, for the peers")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--requests", type=int, default=2, help="of each client in a round")
    parser.add_argument("--tokens", type=int, default=48, help="of each reply")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=physical_cores())
    parser.add_argument("--work", type=Path, default=Path("bench-results/serve"))
    args = parser.parse_args()
    gguf = resolve(MODEL)
    if gguf is None:
        raise SystemExit(f"error: pull the model first: edgedistill models pull {MODEL}")
    bundle = args.work / MODEL
    if not (bundle / "manifest.json").is_file():
        bundle.parent.mkdir(parents=True, exist_ok=True)
        export(str(gguf), bundle, format="int4-b32-asym", context=CONTEXT, calibrate=False, verify=False)
    own = [sys.executable, "-m", "edgedistill", "serve", str(bundle), "--port", "0", "--json"]
    own += ["--threads", str(args.threads), "--parallel"]
    found: dict[tuple[str, int], list[Round]] = {}
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(running([*own, parallel], None))
            for name, parallel in (("edgedistill", str(PARALLEL)), ("edgedistill, one at a time", "1"))
        }
        for program in args.peer:
            name, command, url = peer(program, args.peer_model or gguf, args.threads)
            servers[name] = stack.enter_context(running(command, url, PYTHONPATH=""))
        for server in servers.values():
            ask(server.url, 0, 2)
        first = 1
        for number in range(args.rounds):
            for clients in args.clients:
                for name, server in servers.items():
                    one = measure(server, clients, args.requests, args.tokens, first)
                    found.setdefault((name, clients), []).append(one)
                    print(f"round {number + 1}: {name}, {clients} clients: {one.rate:.1f} tokens/s", flush=True)
                first += clients * args.requests
    print(
        f"\n{args.threads} threads, replies of {args.tokens} tokens, {args.rounds} rounds of {args.requests} a client\n"
    )
    print(
        "| server | clients | tokens/s of its CPU time (range) | tokens/s, all together (range) | median request, s |"
    )
    print("|---|---:|---:|---:|---:|")
    for (name, clients), rounds in sorted(found.items()):
        of_cpu, of_wall = spread([one.cpu_rate for one in rounds]), spread([one.rate for one in rounds])
        print(f"| {name} | {clients} | {of_cpu} | {of_wall} | {median(one.latency_s for one in rounds):.1f} |")
    if not args.peer:
        print("\nllama.cpp was not measured: no --peer.")


if __name__ == "__main__":
    main()
