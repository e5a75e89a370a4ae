"""run, chat --plain and inspect on a real (tiny, random) bundle."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from cli_support import edgedistill, here

from edgedistill.bundle.bundle import Bundle
from edgedistill.cli.inspect import group_of, group_weights

if TYPE_CHECKING:
    from pathlib import Path

SAMPLED = ("--temperature", "1", "--seed", "5", "-n", "12")


def test_run_streams_the_answer_and_puts_the_statistics_on_stderr(tiny_bundle_dir: Path) -> None:
    result = edgedistill("run", tiny_bundle_dir, "hello", *SAMPLED)
    document = here("run", tiny_bundle_dir, "hello", *SAMPLED, "--json").json
    assert result.code == 0
    assert result.out.strip().endswith(document["answer"])
    assert re.search(r"^\d+ tokens in, \d+ out .*\| seed 5 \| (length|stop)$", result.err.strip())
    assert document["stats"]["seed"] == 5
    assert document["stats"]["new_tokens"] == len(document["tokens"]) <= 12


def test_the_prompt_comes_from_stdin_with_a_dash_and_without_one(tiny_bundle_dir: Path) -> None:
    asked = here("run", tiny_bundle_dir, "hello", *SAMPLED, "--json").json
    for arguments in (("-",), ()):
        piped = edgedistill("run", tiny_bundle_dir, *arguments, *SAMPLED, "--json", stdin="hello\n").json
        assert piped["prompt"] == "hello"
        assert piped["tokens"] == asked["tokens"]


def test_options_change_what_the_model_is_given(tiny_bundle_dir: Path) -> None:
    def prompt_tokens(*options: str) -> int:
        document = here("run", tiny_bundle_dir, "hello", "-n", "1", "--json", *options).json
        return int(document["stats"]["prompt_tokens"])

    plain = prompt_tokens()
    assert prompt_tokens("--system", "Be brief.") > plain
    assert prompt_tokens("--no-think") > plain  # the template writes an empty <think> block
    assert prompt_tokens("--raw") < plain


def test_exact_mode_and_fast_mode_are_the_callers_choice(tiny_bundle_dir: Path) -> None:
    for mode in ("fast", "exact"):
        assert here("run", tiny_bundle_dir, "hello", "--numerics", mode, "-n", "3", "--json").json["numerics"] == mode


def test_greedy_has_no_seed_to_report(tiny_bundle_dir: Path) -> None:
    document = here("run", tiny_bundle_dir, "hello", "--temperature", "0", "-n", "3", "--json").json
    assert document["stats"]["seed"] is None


def test_a_stop_string_ends_the_answer(tiny_bundle_dir: Path) -> None:
    arguments = ("run", tiny_bundle_dir, "hello", "--raw", "--temperature", "0", "--json")
    whole = here(*arguments, "-n", "30").json["text"]
    stop = whole[len(whole) // 2]
    cut = here(*arguments, "-n", "30", "--stop", stop).json
    assert cut["finish_reason"] == "stop_string"
    assert cut["text"] == whole[: whole.index(stop)]


def test_a_chat_from_a_script(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    saved = tmp_path / "chat.md"
    script = "\n".join(
        [
            "/help", "/statz", "/stats", "hello", "/stats", "/think off", "/think maybe", "/system Be brief.", "again",
            f"/save {saved}", f"/save {saved}", "/save", "/reset", "/exit", "never asked",
        ]
    )  # fmt: skip
    result = edgedistill("chat", "--plain", tiny_bundle_dir, *SAMPLED, stdin=script)
    assert result.code == 0
    lines = result.err.splitlines()
    assert "There is no command /statz. Did you mean /stats?" in lines
    assert "No answer yet." in lines
    assert sum("tok/s" in line for line in lines) == 1
    assert "Reasoning is off." in lines
    assert "Use /think on, /think off or /think auto." in lines
    assert f"Saved to {saved}." in lines
    assert any(line.startswith("error: ") and "already exists" in line for line in lines)
    text = saved.read_text()
    assert text.index("## System") < text.index("hello") < text.index("again")
    assert "never asked" not in text


def test_a_chat_takes_files_personas_and_prompts(
    tiny_bundle_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platformdirs.user_config_path", lambda *_, **__: tmp_path)
    for name, text in (("personas/terse", "Be terse."), ("prompts/sum", "Sum up: {text}")):
        (tmp_path / name).parent.mkdir()
        (tmp_path / f"{name}.md").write_text(text)
    (tmp_path / "notes.txt").write_text("three short words")
    script = [f"see @{tmp_path}/notes.txt", "see @absent.txt", "/persona", "/persona terse"]
    script += ["/prompt sun x", "/prompt sum it"]
    result = here("chat", "--plain", "--json", tiny_bundle_dir, *SAMPLED, stdin="\n".join(script))
    asked = [turn["content"] for turn in result.json["turns"][::2]]
    assert asked == [f"see {tmp_path}/notes.txt\n\nnotes.txt:\n```\nthree short words\n```", "Sum up: it"]
    assert result.json["system"] == "Be terse."
    lines = result.err.splitlines()
    assert any(line.startswith(f"{tmp_path}/notes.txt: ") and line.endswith(" tokens") for line in lines)
    assert any("absent.txt does not exist" in line for line in lines)
    assert {"terse", "There is no prompt sun. Did you mean sum?", "The system prompt is that of terse."} <= set(lines)


def test_a_chat_remembers_and_reset_forgets(tiny_bundle_dir: Path) -> None:
    def turns(script: str) -> list[dict[str, Any]]:
        result = here("chat", "--plain", "--json", tiny_bundle_dir, *SAMPLED, stdin=script)
        return list(result.json["turns"])

    first, second = (t["stats"]["prompt_tokens"] for t in turns("hello\nhello\n")[1::2])
    assert second > first
    (again,) = (t["stats"]["prompt_tokens"] for t in turns("hello\n/reset\nhello\n")[1::2])
    assert again == first


def test_template_variables_and_budgets_on_the_command_line(tiny_bundle_dir: Path) -> None:
    def tokens(*options: str) -> int:
        return int(here("run", tiny_bundle_dir, "hello", "-n", "2", "--json", *options).json["stats"]["prompt_tokens"])

    assert tokens("--template-var", "enable_thinking=false") == tokens("--no-think") > tokens()
    assert here("run", tiny_bundle_dir, "hello", "--think-budget", "2", "-n", "9", *SAMPLED).code == 0
    for wrong in (("--template-var", "low"), ("--template-var", "messages=[]"), ("--reasoning-tags", "<a>", "<a>"),
                  ("--think-budget", "-1"), ("--think-budget", "5", "--trajectories", "2")):  # fmt: skip
        done = here("run", tiny_bundle_dir, "hello", *wrong)
        assert (done.code, done.err.startswith("error: ")) == (2, True), wrong


def test_a_terminal_that_cannot_be_drawn_on_gets_the_plain_chat(
    tiny_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgedistill.cli.terminal_ui.is_dumb", lambda: True)
    done = here("chat", tiny_bundle_dir, "-n", "2", stdin="hello\n")
    assert done.code == 0
    assert "the line-based chat" in done.err
    assert "tokens in, 2 out" in here("chat", tiny_bundle_dir, "-n", "2", stdin="hello\n/stats\n").err
    assert here("chat").code == 2


def test_a_line_that_is_not_utf8_is_refused_and_a_question_may_begin_with_a_slash(tiny_bundle_dir: Path) -> None:
    script = "caf\udce9\n//help me\n"  # the byte of é in Latin-1
    result = here("chat", "--plain", "--json", tiny_bundle_dir, *SAMPLED, stdin=script)
    assert result.code == 0
    assert [line for line in result.err.splitlines() if line.startswith("error: ")] == [
        "error: That line is not UTF-8 text, so it was not sent to the model. Send it as UTF-8."
    ]
    assert [turn["content"] for turn in result.json["turns"][::2]] == ["/help me"]


def test_an_answer_that_fails_does_not_end_the_chat(tiny_bundle_dir: Path) -> None:
    script = "word " * 2000 + "\nhello\n"
    result = here("chat", "--plain", "--json", tiny_bundle_dir, *SAMPLED, stdin=script)
    assert result.code == 0
    assert "512" in next(line for line in result.err.splitlines() if line.startswith("error: "))
    assert result.json["turns"][0]["content"] == "hello"


def test_inspect_shows_groups_that_add_up(tiny_bundle_dir: Path) -> None:
    document = here("inspect", tiny_bundle_dir, "--json").json
    manifest = document["manifest"]
    assert sum(group["parameters"] for group in document["groups"]) == manifest["parameters"]
    total_bits = 8 * sum(group["bytes"] for group in document["groups"])
    assert total_bits / manifest["parameters"] == pytest.approx(manifest["bits_per_weight"])
    assert document["bytes"] == sum((tiny_bundle_dir / f["name"]).stat().st_size for f in manifest["files"])
    assert [group["name"] for group in document["groups"]] == ["embedding", "norms", "attention", "mlp"]

    text = here("inspect", tiny_bundle_dir, "--weights", "--verify").out
    for entry in manifest["files"]:
        assert entry["sha256"] in text
    for weight in manifest["weights"]:
        assert weight["name"] in text
    assert "All hashes match" in text


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("embed", "embedding"),
        ("lm_head", "lm_head"),
        ("layers.0.attn.qkv", "attention"),
        ("layers.0.attn.qkv.bias", "biases"),
        ("layers.0.attn.q_norm", "norms"),
        ("layers.10.mlp.down", "mlp"),
        ("gpt_neox.layers.0.dense", "other"),
    ],
)
def test_groups(name: str, group: str) -> None:
    assert group_of(name) == group


def test_groups_keep_their_formats_apart(tiny_bundle_dir: Path) -> None:
    groups = {group["name"]: group for group in group_weights(Bundle.open(tiny_bundle_dir).manifest.weights)}
    assert groups["norms"]["formats"] == ["fp32"]
    assert groups["norms"]["bits_per_weight"] == 32
    assert groups["mlp"]["formats"] == ["int4-b32-asym-search-s8"]
    assert 4 < groups["mlp"]["bits_per_weight"] < 6


def test_the_summary_of_an_export_is_json_on_demand(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    document = here("export", tiny_checkpoint_dir, "-o", out, "--format", "int8", "--no-check", "--json").json
    manifest = json.loads((out / "manifest.json").read_text())
    assert document["path"] == str(out)
    assert document["bits_per_weight"] == manifest["bits_per_weight"]
    assert document["bundle_bytes"] == sum(entry["size"] for entry in manifest["files"])
    assert {w["format"]["bits"] for w in manifest["weights"] if len(w["shape"]) == 2} == {8}
    assert document["verification"] == manifest["verification"]
    if document["verification"]["status"] == "skipped":  # a machine on which the bundle is too slow for it
        assert "tokens/s on this machine" in document["verification"]["reason"]
    else:
        assert document["verification"]["status"] == "checked"
        assert "diffuse, accuracy 0.0 %" in here("inspect", out).out
    both = ("--no-verify", "--reference", "hf")
    assert "exclude" in here("export", tiny_checkpoint_dir, "-o", tmp_path / "x", *both).one_error()


def test_a_chat_that_goes_on_with_kept_prompts_computes_new_tokens_only(tiny_bundle_dir: Path, tmp_path: Path) -> None:
    def stats(*options: str) -> dict[str, Any]:
        document = here(
            "chat",
            tiny_bundle_dir,
            "--plain",
            "--json",
            "--seed",
            1,
            "-n",
            8,
            *options,
            stdin="hello\n",
            EDGEDISTILL_CACHE=str(tmp_path),
        ).json
        found: dict[str, Any] = document["turns"][-1]["stats"]
        return found

    assert stats()["cached_tokens"] == 0
    assert not (tmp_path / "prompts").exists()
    assert stats("--prompt-cache")["cached_tokens"] == 0
    again = stats("--prompt-cache")
    assert again["cached_tokens"] == again["prompt_tokens"] - 1
    assert stats("--no-prompt-cache")["cached_tokens"] == 0
    shown = here("cache", "show", "--json", EDGEDISTILL_CACHE=str(tmp_path)).json
    assert shown["files"] == len(list((tmp_path / "prompts").iterdir())) > 0
    assert "prompts" not in here("cache", "clear", "--packed", EDGEDISTILL_CACHE=str(tmp_path)).out
    assert here("cache", "show", "--json", EDGEDISTILL_CACHE=str(tmp_path)).json == shown
    said = here("cache", "clear", "--prompts", EDGEDISTILL_CACHE=str(tmp_path)).out
    assert said.startswith(f"deleted {shown['files']} files of kept prompts")
    assert here("cache", "show", "--json", EDGEDISTILL_CACHE=str(tmp_path)).json["files"] == 0
    assert stats("--prompt-cache")["cached_tokens"] == 0


def test_a_draft_changes_no_token(tiny_bundle_dir: Path) -> None:
    command = ("run", tiny_bundle_dir, "0123 0123 0123", "--json", "-n", 24, "--numerics", "exact", "--seed", 1)
    plain = here(*command, "--speculate", "off").json
    assert here(*command, "--draft", tiny_bundle_dir).json["tokens"] == plain["tokens"]
    refused = here(*command, "--draft", tiny_bundle_dir / "none")
    assert refused.code == 2
    assert "none" in refused.err


def test_guesses_show_in_the_statistics(tiny_bundle_dir: Path) -> None:
    command = (
        "run",
        tiny_bundle_dir,
        "hello hello hello hello",
        "--json",
        "--seed",
        1,
        "-n",
        24,
        "--numerics",
        "exact",
    )
    plain, guessed = (here(*command, "--speculate", way).json for way in ("off", "auto"))
    assert plain["text"] == guessed["text"]
    assert plain["stats"]["drafted_tokens"] == 0
    assert guessed["stats"]["drafted_tokens"] >= guessed["stats"]["accepted_tokens"]
    refused = here(*command, "--speculate", "99")
    assert refused.code == 2
    assert "speculate is 99; expected auto, off, identical or a number from 1 to 15." in refused.err
