"""``edgedistill serve``: a bundle behind OpenAI's HTTP API, until Ctrl-C."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.cli import console, generation
from edgedistill.cli.bundle_options import MODEL_HELP, add_trusted_key, bundle_path
from edgedistill.errors import UsageError
from edgedistill.extras import missing
from edgedistill.system.host_names import LOOPBACK, address
from edgedistill.units import format_count

if TYPE_CHECKING:
    import argparse
    from socket import socket

    from edgedistill.server.options import ServeOptions
    from edgedistill.server.service import Service

KEY = "EDGEDISTILL_API_KEY"
"""Variable that holds the key which clients have to send."""

_MB = 10**6
EXAMPLES = """\
examples:
  edgedistill serve my-bundle                      at http://127.0.0.1:8080/v1
  edgedistill serve tiny-reasoner --port 0 --json  a free port, printed for scripts
  edgedistill serve my-bundle --parallel 4 --context 2048
  EDGEDISTILL_API_KEY=... edgedistill serve my-bundle --host 0.0.0.0 --allow-host box.example

  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"messages": [{"role": "user", "content": "What is 17 + 25?"}]}'

Any client of OpenAI's API works: base URL http://127.0.0.1:8080/v1, any key unless one is set. For the terminal UI in a
browser see: edgedistill chat --serve"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``serve``."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help=MODEL_HELP)
    parser.add_argument("--json", action="store_true", help="print the address as JSON when the server listens")
    reach = parser.add_argument_group("who may ask")
    reach.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1); others need a key")
    reach.add_argument("--port", type=int, default=8080, metavar="N", help="port to listen on (8080); 0: a free one")
    reach.add_argument("--api-key", metavar="KEY", help=f"key that clients have to send; better in {KEY}")
    reach.add_argument(
        "--allow-host", action="append", metavar="NAME", help="also accept requests for this host name (repeatable)"
    )
    reach.add_argument(
        "--cors-origin",
        action="append",
        metavar="ORIGIN",
        help="web page that may send requests, such as https://box (repeatable)",
    )
    reach.add_argument("--name", metavar="NAME", help="name of the model for clients (default: the bundle's directory)")
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--parallel", type=int, default=8, metavar="N", help="most sequences decoded at a time, memory permitting (8)"
    )
    limits.add_argument(
        "--queue", type=int, default=64, metavar="N", help="most requests that wait; more are refused (64)"
    )
    limits.add_argument("--context", type=int, metavar="N", help="longest prompt plus answer, in tokens (the bundle's)")
    limits.add_argument("--max-body", type=float, default=4.0, metavar="MB", help="largest request, in 10^6 bytes (4)")
    limits.add_argument(
        "--request-timeout", type=float, default=600.0, metavar="S", help="longest request, in seconds (600)"
    )
    limits.add_argument(
        "--grace", type=float, default=10.0, metavar="S", help="seconds for running requests when the server ends (10)"
    )
    running = parser.add_argument_group("running")
    running.add_argument(
        "--numerics", choices=("fast", "exact"), default="fast",
        help="exact: an answer never depends on other requests; slower",
    )  # fmt: skip
    running.add_argument(
        "--prefill-chunk", type=int, default=64, metavar="N",
        help="tokens of a prompt that are computed between two tokens of other requests (64)",
    )  # fmt: skip
    running.add_argument(
        "--draft", type=Path, metavar="BUNDLE", help=f"{generation.DRAFT_HELP}; only for a request that runs alone"
    )
    running.add_argument("--threads", type=int, metavar="N", help="threads (default: the bundle's profile)")
    running.add_argument(
        "--reasoning-tags", nargs=2, metavar=("OPEN", "CLOSE"),
        help="what opens and closes reasoning, instead of the marks in the bundle",
    )  # fmt: skip
    thinking = running.add_mutually_exclusive_group()
    thinking.add_argument(
        "--think", action="store_true", default=None, help="have the model reason, unless a request says otherwise"
    )
    thinking.add_argument(
        "--no-think", dest="think", action="store_false", help="have it answer at once, unless a request says otherwise"
    )
    running.add_argument(
        "--think-budget", type=int, default=0, metavar="N",
        help="most tokens of reasoning, unless a request says otherwise (0: no limit)",
    )  # fmt: skip
    running.add_argument(
        "--template-var",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="variable of the chat template (repeatable)",
    )
    running.add_argument("--verify", action="store_true", help="compare the bundle's SHA-256 sums first")
    add_trusted_key(running)


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    try:
        from edgedistill.server.app import create_app
        from edgedistill.server.listen import open_socket, serve
        from edgedistill.server.service import Service
    except ImportError as error:
        raise missing("serve needs starlette and uvicorn, which are not installed.", "server") from error
    options = _options(args)
    with open_socket(options.host, args.port) as sock:
        args.bundle = bundle_path(args.bundle)
        from edgedistill.cli.kept_files import keep_files

        with generation.open_model(args) as model, keep_files(model.bundle):
            service = Service(model, options)
            try:
                app = create_app(service, report=_report)
                serve(app, sock, options, ready=lambda: _tell(args, service, sock))
            finally:
                service.close()
    return 0


def _options(args: argparse.Namespace) -> ServeOptions:
    from edgedistill.server.options import ServeOptions

    key = args.api_key if args.api_key is not None else os.environ.get(KEY) or None
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise UsageError("The API key has to be a word of printable ASCII characters.")
    if args.host not in LOOPBACK and key is None:
        raise UsageError(
            f"{args.host} can be reached from other machines; expected a key for it.",
            hint=f"Set {KEY}, or leave out --host.",
        )
    if not 0 <= args.port < 65536:
        raise UsageError(f"--port is {args.port}; expected 0 to 65535.")
    for name, least in (("parallel", 1), ("queue", 1), ("prefill_chunk", 2), ("context", 16), ("think_budget", 0)):
        if (value := getattr(args, name)) is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} is {value}; expected {least} or more.")
    for name in ("max_body", "request_timeout", "grace"):
        if not 0 < getattr(args, name) < 1e6:
            raise UsageError(f"--{name.replace('_', '-')} is {getattr(args, name):g}; expected a positive number.")
    return ServeOptions(
        name=args.name or args.bundle.name or "model",
        host=args.host,
        names=tuple(args.allow_host or ()),
        api_key=key,
        cors_origins=tuple(args.cors_origin or ()),
        parallel=args.parallel,
        queue=args.queue,
        context=args.context,
        prefill_chunk=args.prefill_chunk,
        max_body=int(args.max_body * _MB),
        timeout_s=args.request_timeout,
        grace_s=args.grace,
        numerics=args.numerics,
        thinking=args.think,
        think_budget=args.think_budget,
    )


def _tell(args: argparse.Namespace, service: Service, sock: socket) -> None:
    port = sock.getsockname()[1]
    url = f"{address(args.host, port)}/v1"
    if args.json:
        console.out_json(
            {
                "url": url,
                "host": args.host,
                "port": port,
                "model": service.options.name,
                "identity": service.identity,
                "places": service.batch.places,
                "context_length": service.limit,
                "key": service.options.api_key is not None,
            }
        )
    else:
        console.out(f"{service.options.name} is served at {url}")
    sys.stdout.flush()
    for note in service.notes:
        console.note(f"note: {note}")
    if args.host not in LOOPBACK:
        console.note(f"warning: {args.host} can be reached from other machines, and what is sent is not encrypted.")
    size = f"{service.batch.places} sequences at a time, {format_count(service.limit)} tokens each"
    console.note(f"{size}. Ctrl-C ends the server.")


def _report(error: Exception) -> None:
    """A bug, on stderr: the client was told its kind alone."""
    console.problem(f"error: a request failed: {type(error).__name__}: {error}")
    if os.environ.get("EDGEDISTILL_TRACEBACK"):
        console.problem(console.lines("".join(traceback.format_exception(error))))
