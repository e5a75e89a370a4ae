"""The process that renders chat templates: Jinja in a sandbox, under limits of time and memory.

A chat template is a program from whoever made the checkpoint. The sandbox keeps it from reaching attributes and
changing objects; it cannot stop ``{% for %}`` inside ``{% for %}``, a string doubled forty times or a list that prints
for ever, some of which run inside C code that no Python hook interrupts. A process can be ended. This file runs by
itself (``chat_template.py`` starts it), reads one JSON request a line, writes one JSON reply a line, and ends itself by
an alarm when a rendering takes too long, even if its parent is gone.

The environment is that of transformers' ``apply_chat_template`` (utils/chat_template_utils.py).
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

if TYPE_CHECKING:
    from jinja2.parser import Parser

MEMORY_LIMIT = 1 << 30


class _GenerationTag(jinja2.ext.Extension):
    """``{% generation %}`` marks assistant text for training; for rendering it is only its content."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(lineno)

    def _content(self, caller: Any) -> str:
        return str(caller())


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: jinja's own filter escapes HTML characters."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Refuses an unsafe attribute where it is read; jinja's own prints it as an empty string."""

    def unsafe_undefined(self, obj: Any, attribute: str) -> NoReturn:
        raise SecurityError(f"access to attribute {attribute!r} of a {type(obj).__name__}")


def make_environment() -> ImmutableSandboxedEnvironment:
    """The sandbox, with the names that chat templates expect."""
    environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment


def render(
    environment: ImmutableSandboxedEnvironment, request: dict[str, Any], compiled: dict[str, jinja2.Template]
) -> dict[str, str]:
    """Reply to one request: ``text``, or ``error`` (security, template, memory) with a ``message``.

    ``compiled`` keeps the template of the request before, which is that of the next one.
    """
    source = request["template"]
    try:
        if source not in compiled:
            compiled.clear()
            compiled[source] = environment.from_string(source)
        text = compiled[source].render(**request["variables"])
        reply = {"text": text} if len(text) <= request["limit"] else _error("size", f"renders {len(text)} characters")
    except SecurityError as error:
        reply = _error("security", str(error))
    except jinja2.TemplateSyntaxError as error:
        reply = _error("template", f"line {error.lineno}: {error.message}")
    except MemoryError:
        reply = _error("memory", "needs too much memory")
    except RecursionError:
        reply = _error("template", "nests too deeply")
    except Exception as error:  # whatever a template provokes in jinja or in Python is the template's fault
        reply = _error("template", str(error) or type(error).__name__)
    return reply


def _error(kind: str, message: str) -> dict[str, str]:
    return {"error": kind, "message": message[:500]}


def main() -> None:
    """Serve requests until the input ends."""
    if sys.platform != "win32":
        with contextlib.suppress(ImportError, ValueError, OSError):
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    if sys.platform != "win32":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a parent that ignores it would pass that on
    environment = make_environment()
    compiled: dict[str, jinja2.Template] = {}
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if sys.platform != "win32":  # the default action of its SIGALRM ends the process, inside C code as well
            signal.setitimer(signal.ITIMER_REAL, request["deadline"])
        reply = json.dumps(render(environment, request, compiled))
        if sys.platform != "win32":
            signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.buffer.write(reply.encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
