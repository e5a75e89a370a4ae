"""Tools of MCP servers (modelcontextprotocol.io), by the package ``mcp``: a command that is started, or an address."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TextIO

from edgedistill.errors import EdgedistillError, UsageError
from edgedistill.extras import missing
from edgedistill.runtime.tools.types import Tool

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.from_thread import BlockingPortal
    from mcp import Client

_SECONDS = 60.0


class McpServers:
    """Connections to servers, each with its tools; a context manager that ends them.

    Args:
        silent: What a started server writes to its stderr is dropped.

    Attributes:
        tools: Of all servers. Their functions wait for the server's result and raise what it says went wrong.
    """

    def __init__(self, *, silent: bool = False) -> None:
        self.tools: list[Tool] = []
        self._stack = ExitStack()
        silence = Path(os.devnull).open("w", encoding="utf-8") if silent else None  # noqa: SIM115 (the stack closes it)
        self._errors: TextIO = sys.stderr if silence is None else self._stack.enter_context(silence)
        self._portal: BlockingPortal | None = None

    def connect(self, target: str) -> list[Tool]:
        """The tools of a server.

        Args:
            target: ``http://...`` or ``https://...``, or a command with its arguments, which is started.

        Raises:
            MissingExtraError: The package ``mcp`` is not installed.
            UsageError: No server answers there.
        """
        try:
            from anyio.from_thread import start_blocking_portal
            from mcp import Client, StdioServerParameters, stdio_client
        except ImportError as error:
            raise missing("MCP servers need the package mcp, which is not installed.", "mcp") from error
        words = [target] if target.startswith(("http://", "https://")) else shlex.split(target)
        if not words:
            raise UsageError("--mcp is empty; expected a command or an address.")
        command = StdioServerParameters(command=words[0], args=words[1:])
        server = words[0] if "://" in words[0] else stdio_client(command, errlog=self._errors)
        if self._portal is None:
            self._portal = self._stack.enter_context(start_blocking_portal())
        try:
            client = self._stack.enter_context(
                self._portal.wrap_async_context_manager(Client(server, read_timeout_seconds=_SECONDS))
            )
            listed = self._portal.call(client.list_tools).tools
        except EdgedistillError:
            raise
        except Exception as error:  # whatever the package, its transport or the server raises
            raise UsageError(
                f"No MCP server answers at {target}: {_said(error)}.",
                hint="Give a command that starts one on its stdin and stdout, or the address of one.",
            ) from error
        found = [
            Tool(one.name, one.description or "", one.input_schema, self._function(client, one.name)) for one in listed
        ]
        self.tools += found
        return found

    def _function(self, client: Client, name: str) -> Callable[..., str]:
        portal = self._portal

        def call(**arguments: Any) -> str:
            if portal is None:
                raise RuntimeError("the connection has ended")
            result = portal.call(client.call_tool, name, arguments)
            texts = [getattr(part, "text", None) or f"[{part.type}]" for part in result.content]
            if result.is_error:
                raise RuntimeError("\n".join(texts) or "the server says no more")
            return "\n".join(texts)

        return call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def _said(error: BaseException) -> str:
    """The innermost error of a group, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".")
