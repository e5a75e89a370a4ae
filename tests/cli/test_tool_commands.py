"""Tools and forms of the answer in ``run`` and ``chat --plain``: what runs, who is asked, what goes back."""

from __future__ import annotations

import argparse
import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest
from cli_support import here

from edgedistill.cli import terminal_ui, tool_rounds
from edgedistill.errors import UsageError
from edgedistill.runtime.tools.execute import run_call
from edgedistill.runtime.tools.rounds import ToolRounds
from edgedistill.runtime.tools.types import Tool, ToolCall

if TYPE_CHECKING:
    from pathlib import Path

TOOLS = '''\
"""Tools for tests."""
from typing import Literal


def pick(color: Literal["red", "blue"]) -> dict[str, str]:
    """Choose a colour.

    Args:
        color: Which.
    """
    return {"picked": color}


def sell() -> str:
    """Sell."""
    raise ValueError("sold out")


def _hidden() -> None: ...
'''
SERVER = '''\
from mcp.server import MCPServer

server = MCPServer("test")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def fail() -> str:
    """Fail."""
    raise ValueError("no luck")


server.run()
'''
SAMPLED = ("--temperature", "1", "--seed", "1", "-n", "60", "--no-think")


@pytest.fixture
def tools_file(tmp_path: Path) -> Path:
    path = tmp_path / "tools.py"
    path.write_text(TOOLS)
    return path


def test_calls_run_and_their_results_go_back(roomy_bundle_dir: Path, tools_file: Path) -> None:
    ask = ("run", roomy_bundle_dir, "Pick.", "--tools", tools_file, "--yes-tools", *SAMPLED, "--tool-rounds", "1")
    for name in ("pick", "sell"):
        result = here(*ask, "--tool-choice", name, "--json")
        assert result.code == 0
        assert "tools.py, which runs with your rights: pick, sell" in result.err
        document = result.json
        asked, answered = document["steps"]
        [call] = asked["tool_calls"]
        given = json.loads(call["function"]["arguments"])
        assert f"call: {name}({call['function']['arguments']})" in result.err
        assert answered["tool_call_id"] == call["id"]
        picked = json.dumps({"picked": given.get("color")})
        assert answered["content"] == (picked if name == "pick" else "Error: ValueError: sold out")
        assert document["tool_calls"] == []


def test_a_conversation_keeps_calls_and_results(roomy_bundle_dir: Path, tools_file: Path, tmp_path: Path) -> None:
    saved = tmp_path / "talk.md"
    result = here(
        "chat", roomy_bundle_dir, "--plain", "--json", "--tools", tools_file, "--yes-tools", "--tool-choice", "pick",
        *SAMPLED, "--tool-rounds", "1", stdin=f"Pick.\n/save {saved}\n/trajectories 4\n",
    )  # fmt: skip
    assert result.code == 0
    question, answer = result.json["turns"]
    assert question["content"] == "Pick."
    assert [step["role"] for step in answer["steps"]] == ["assistant", "tool"]
    assert "*calls* `pick(" in saved.read_text()
    assert "Several trajectories do not take tools" in result.err


def test_nobody_to_ask_is_refused_before_anything_runs(roomy_bundle_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "tools.py"
    path.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n{TOOLS}")
    result = here("run", roomy_bundle_dir, "Pick.", "--tools", path)
    assert result.code == 2
    assert "stdin is not a terminal" in result.err
    assert "--yes-tools" in result.err
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--tools", "absent.py", "--yes-tools"), "There is no file absent.py"),
        (("--yes-tools",), "need tools"),
        (("--tools", "FILE", "--yes-tools", "--tool-choice", "fly"), "expected auto, required or a tool: pick, sell"),
        (("--tools", "FILE", "--yes-tools", "--tool-rounds", "0"), "--tool-rounds is 0"),
        (("--tools", "FILE", "--yes-tools", "--raw"), "tools have no place"),
        (("--tools", "FILE", "--yes-tools", "--trajectories", "4"), "trajectories do not take tools"),
        (("--choices", "a", "--trajectories", "4"), "do not take a form"),
        (("--tools", "FILE", "--tools", "FILE", "--yes-tools"), "Two tools are called pick"),
        (("--json-schema", "absent.json"), "--json-schema cannot read absent.json"),
        (("--json-schema", "FILE"), "is not JSON"),
        (("--json-schema", "/dev/zero"), "cannot read /dev/zero: it has more than 16 MiB"),
        (("--grammar", "absent.lark"), "--grammar cannot read"),
        (("--regex", "("), "regular expression cannot be used"),
        (("--choices", "a,,b"), "expected texts that are not empty"),
    ],
)
def test_what_cannot_be_is_one_line(
    roomy_bundle_dir: Path, tools_file: Path, arguments: tuple[str, ...], message: str
) -> None:
    given = [tools_file if one == "FILE" else one for one in arguments]
    result = here("run", roomy_bundle_dir, "Pick.", *given)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "defines no function"),
        ("1 / 0", "ZeroDivisionError"),
        ("def f(*a): ...", "cannot be given by name"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_files_that_hold_no_tools(roomy_bundle_dir: Path, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tools.py").write_text(text)
    result = here("run", roomy_bundle_dir, "Pick.", "--tools", tmp_path / "tools.py", "--yes-tools")
    assert result.code == 2
    assert message in result.err


def test_the_terminal_ui_is_given_the_tools_and_asks_by_itself(
    tools_file: Path, roomy_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal_ui, "require_terminal", lambda: None)
    given: list[Any] = []

    def record(**options: Any) -> int:
        given.append(options)
        return 0

    monkeypatch.setattr(terminal_ui, "run_app", record)
    ask: tuple[Any, ...] = (
        "chat",
        roomy_bundle_dir,
        "--tools",
        tools_file,
        "--tool-rounds",
        "3",
        "--reasoning-effort",
        "low",
    )
    ask += ("--no-think", "--think-budget", "7", "--template-var", "tone=dry")
    assert here(*ask).code == 0
    rounds = given[0]["tools"]
    assert [tool.name for tool in rounds.tools] == ["pick", "sell"]
    assert (rounds.most, rounds.unasked, given[0]["overrides"]["reasoning_effort"]) == (3, False, "low")
    assert (given[0]["overrides"]["thinking"], given[0]["overrides"]["think_budget"]) == (False, 7)
    assert given[0]["template_vars"] == {"tone": "dry"}
    refused = here("chat", roomy_bundle_dir, "--tools", tools_file, "--trajectories", "4")
    assert refused.code == 2
    assert "trajectories do not take tools" in refused.err


def test_plain_commands_for_tools_and_effort(tools_file: Path, roomy_bundle_dir: Path) -> None:
    result = here(
        "chat", roomy_bundle_dir, "--plain", "--tools", tools_file, "--yes-tools",
        stdin="/tools\n/effort low\n/effort much\n/effort auto\n/trajectories 4\n",
    )  # fmt: skip
    assert result.code == 0
    assert "pick  Choose a colour." in result.err
    assert "Reasoning effort: low." in result.err
    assert "Use /effort with one of none, minimal, low, medium, high and auto." in result.err


def test_answers_in_a_form(roomy_bundle_dir: Path, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3}')
    grammar = tmp_path / "form.gbnf"
    grammar.write_text('root ::= "n" [0-9]')
    ask = ("run", roomy_bundle_dir, "?", *SAMPLED)
    found = json.loads(here(*ask, "--json-schema", schema).out)
    assert found
    assert all(isinstance(one, bool) for one in found)
    assert here(*ask, "--choices", "yes, no").out.strip() in ("yes", "no")
    assert here(*ask, "--grammar", grammar).out.strip()[0] == "n"
    assert here(*ask, "--regex", "[ab]{3}").out.strip() in [a + b + c for a in "ab" for b in "ab" for c in "ab"]


class Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


def _box(tools_file: Path, monkeypatch: pytest.MonkeyPatch, typed: str) -> tool_rounds.Toolbox:
    monkeypatch.setattr(sys, "stdin", Keyboard(typed))
    parser = argparse.ArgumentParser()
    tool_rounds.add_options(parser)
    return tool_rounds.Toolbox(parser.parse_args(["--tools", str(tools_file)]))


BLUE = ToolCall("1", "pick", '{"color": "blue"}')


@pytest.mark.parametrize(
    ("typed", "runs"),
    [("y\nn\n", [True, False]), ("a\n", [True, True]), ("what\nyes\n\nno\n", [True, False]), ("", [False, False])],
    ids=["yes, no", "always", "asked again", "end of input"],
)
def test_a_call_runs_only_if_the_user_agrees(
    tools_file: Path, monkeypatch: pytest.MonkeyPatch, typed: str, runs: list[bool]
) -> None:
    with _box(tools_file, monkeypatch, typed) as box:
        results = [box.run(BLUE) for _ in runs]
    assert [result == '{"picked": "blue"}' for result in results] == runs
    assert all("did not allow" in result for result, ran in zip(results, runs, strict=True) if not ran)


def test_ctrl_c_stops_a_tool_and_is_told_to_the_model(tools_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped() -> str:
        raise KeyboardInterrupt

    with _box(tools_file, monkeypatch, "y\n") as box:
        box.rounds = ToolRounds((Tool("slow", function=stopped),))
        assert "stopped this call" in box.run(ToolCall("1", "slow", "{}"))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (ToolCall("1", "add", '{"a": 1, "b": 2}'), ("3", True)),
        (ToolCall("1", "add", '{"a": 1}'), ("Error: the parameter b is missing; expected a, b.", False)),
        (ToolCall("1", "add", '{"a": 1, "b": 2, "c": 3}'), ("Error: there is no parameter c; expected a, b.", False)),
        (ToolCall("1", "add", '{"a": 1, "b": "x"}'), None),
        (ToolCall("1", "fly", "{}"), ("Error: there is no tool fly.", False)),
        (ToolCall("1", "add", "[1]"), None),
    ],
)
def test_errors_become_results(call: ToolCall, expected: tuple[str, bool] | None) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    found = run_call([Tool.of(add)], call)
    assert found == expected if expected else (found[0].startswith("Error: ") and not found[1])


@pytest.mark.slow  # a busy machine imports the package mcp in many seconds, here and in each server
def test_tools_of_an_mcp_server(tmp_path: Path, roomy_bundle_dir: Path) -> None:
    from edgedistill.runtime.tools.mcp_servers import McpServers

    path = tmp_path / "server.py"
    path.write_text(SERVER)
    with McpServers() as servers:
        tools = servers.connect(f"'{sys.executable}' '{path}'")
        assert [tool.name for tool in tools] == ["add", "fail"]
        assert tools[0].description == "Add two numbers."
        assert run_call(tools, ToolCall("1", "add", '{"a": 2, "b": 40}')) == ("42", True)
        said, good = run_call(tools, ToolCall("2", "fail", "{}"))
        assert not good
        assert "Error" in said
        with pytest.raises(UsageError, match="No MCP server answers"):
            servers.connect(f"'{sys.executable}' -c pass")
        with pytest.raises(UsageError, match="No MCP server answers at no-such-command"):
            servers.connect("no-such-command-at-all")
    ask = ("run", roomy_bundle_dir, "Add.", "--mcp", f"'{sys.executable}' '{path}'", "--yes-tools", *SAMPLED)
    result: Any = here(*ask, "--tool-choice", "fail", "--tool-rounds", "1", "--json")
    assert result.code == 0
    assert result.json["steps"][1]["content"].startswith("Error")
