"""A model behind an OpenAI-compatible server, as reference and as bundle, over real HTTP."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from api_server import Served, serving
from chat_server import ChatServer, serve
from cli_support import here

from edgedistill.errors import VerifyError
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.runtime.model import open_bundle
from edgedistill.verify.models.endpoint import EndpointModel
from edgedistill.verify.references.baseline_file import Baseline
from edgedistill.verify.suites.registry import load_suite

SETTINGS = DrawSettings(temperature=0.6, top_k=20, top_p=0.95, max_new_tokens=150)


@pytest.fixture(scope="module")
def server(reasoner: Callable[[str], Path]) -> Iterator[ChatServer]:
    with open_bundle(reasoner("int4-b32"), threads=1) as model, serve(model) as running:
        yield running


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "few.jsonl"
    chosen = load_suite("arithmetic").prompts[::25][:6]
    rows = [{"id": one.id, "prompt": one.messages[-1].content, "answer": one.answer} for one in chosen]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_replies_are_read_like_those_of_a_bundle(server: ChatServer) -> None:
    prompts = load_suite("arithmetic").prompts[:2]
    server.asked.clear()
    with EndpointModel(server.address) as model:
        assert model.identity.name == "tiny-reasoner"
        drawn = {one.key: one for one in model.draw(prompts, 3, SETTINGS)}
        again = {one.key: one for one in model.draw(prompts, 3, SETTINGS, done=[(prompts[0].id, 0)])}
    assert set(drawn) == {(prompt.id, index) for prompt in prompts for index in range(3)}
    assert len(again) == 5
    assert all(again[key] == drawn[key] for key in again), "a seed of its own for every sample, always the same"
    assert len({body["seed"] for body in server.asked}) == 6
    assert any(one.sample.correct for one in drawn.values())
    one = drawn[prompts[0].id, 0].sample
    assert one.tokens > one.reasoning_tokens > 0
    assert "think" not in one.text
    body = server.asked[0]
    assert (body["temperature"], body["top_k"], body["max_tokens"]) == (0.6, 20, 150)
    assert "min_p" not in body, "servers that know the plain API only refuse what they do not know"


def test_reasoning_inside_the_text_is_the_same_reply(server: ChatServer) -> None:
    prompts = load_suite("arithmetic").prompts[:1]
    with EndpointModel(server.address) as model:
        (apart,) = model.draw(prompts, 1, SETTINGS)
        server.splits_reasoning = False
        try:
            (inside,) = model.draw(prompts, 1, SETTINGS)
        finally:
            server.splits_reasoning = True
    assert inside.sample.answer == apart.sample.answer
    assert inside.sample.text == apart.sample.text


def test_a_reply_at_its_limit_is_truncated(server: ChatServer) -> None:
    with EndpointModel(server.address) as model:
        (drawn,) = model.draw(load_suite("arithmetic").prompts[:1], 1, SETTINGS.replace(max_new_tokens=3))
    assert drawn.sample.kind == "truncated"


def test_a_busy_server_is_asked_again_and_others_end_the_run(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = load_suite("arithmetic").prompts[:1]
    monkeypatch.setenv("OPENAI_API_KEY", "a-key")
    with EndpointModel(server.address) as model:
        server.fail += [(503, "loading"), (429, "slow down")]
        assert len(list(model.draw(prompts, 1, SETTINGS))) == 1
        assert server.headers[-1] == "Bearer a-key"
        server.fail += [(401, "wrong \x1b[31m key")]
        with pytest.raises(VerifyError, match=r"answered 401: .*wrong.* key.* belongs in OPENAI_API_KEY") as raised:
            list(model.draw(prompts, 1, SETTINGS))
        assert "\x1b" not in raised.value.message


def test_what_is_no_server_is_one_line(server: ChatServer) -> None:
    with pytest.raises(VerifyError, match="cannot be reached"):
        EndpointModel("http://127.0.0.1:9/v1")
    with pytest.raises(VerifyError, match="has no model `other`; it has tiny-reasoner"):
        EndpointModel(f"{server.address}#other")
    server.names.append("second")
    try:
        with pytest.raises(VerifyError, match="has 2 models"):
            EndpointModel(server.address)
        EndpointModel(f"{server.address}#second").close()
    finally:
        server.names.pop()
    assert "cannot be reached" in here("verify", "http://127.0.0.1:9/v1", "--reference", "x", "--no-store").one_error()


def test_a_server_as_the_reference_is_unpaired_and_said_to_be(
    server: ChatServer, reasoner: Callable[[str], Path], suite: Path
) -> None:
    done = here("verify", reasoner("int4-b32"), "--reference", server.address, "--suite", suite, "--samples", 4,
                "-n", 150, "--fast", "--no-store", "--json")  # fmt: skip
    report = done.report
    assert report["reference"]["kind"] == "endpoint"
    assert report["settings"]["coupled"] is False
    assert report["reference_settings"] is None, "sampled like the bundle"
    assert report["pairs"]["flips"] is None
    assert report["tokens"]["survival"] is None
    assert any("no divergences by token" in note for note in report["notes"])
    assert report["reference_result"]["accuracy"]["value"] > 0.5


def test_a_server_as_the_bundle_against_a_baseline(
    server: ChatServer, reasoner: Callable[[str], Path], suite: Path, tmp_path: Path
) -> None:
    baseline = tmp_path / "a.baseline"
    common = ("--suite", suite, "--no-store")
    made = here("baseline", "create", reasoner("int4-b32"), "-o", baseline, "--samples", 4, "-n", 150, *common)
    assert made.code == 0, made.err
    server.asked.clear()
    done = here("verify", server.address, "--baseline", baseline, *common)
    assert done.code in (0, 1, 3), done.err
    assert "A server drew the bundle's replies." in done.out
    assert "noise of sampling counts twice" in done.out
    assert {body["temperature"] for body in server.asked} == {0.6}
    assert {body["max_tokens"] for body in server.asked} == {150}


def test_a_baseline_of_a_server(
    server: ChatServer, reasoner: Callable[[str], Path], suite: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.baseline"
    options = ("--suite", suite, "--no-store")
    made = here("baseline", "create", server.address, "-o", path, "--samples", 2, "-n", 150, *options)
    assert made.code == 0, made.err
    assert Baseline.load(path).identity.kind == "endpoint"
    report = here("verify", reasoner("int4-b32"), "--baseline", path, *options, "--json").report
    assert report["settings"]["coupled"] is False


@pytest.fixture(scope="module")
def own(reasoner: Callable[[str], Path]) -> Iterator[Served]:
    """What ``edgedistill serve`` runs: the project's own server, of the bundle in full precision."""
    with open_bundle(reasoner("fp32"), threads=1) as model, serving(model, parallel=4) as running:
        yield running
        assert not running.bugs


def test_the_own_server_is_a_reference(own: Served, reasoner: Callable[[str], Path], suite: Path) -> None:
    report = here("verify", reasoner("int4-b32"), "--reference", own.url, "--suite", suite, "--samples", 4,
                  "-n", 150, "--fast", "--no-store", "--json").report  # fmt: skip
    assert report["reference"]["kind"] == "endpoint"
    assert report["settings"]["coupled"] is False
    assert report["reference_result"]["accuracy"]["value"] > 0.5
    assert report["reference_result"]["form"]["reasoning_tokens"]["value"] > 10, "reasoning comes apart from the text"


def test_the_own_server_is_verified_like_the_bundle_that_it_serves(
    own: Served, reasoner: Callable[[str], Path], suite: Path, tmp_path: Path
) -> None:
    """One model behind HTTP and as a bundle: other noise, the same distribution of answers."""
    baseline, common = tmp_path / "a.baseline", ("--suite", suite, "--no-store")
    made = here("baseline", "create", reasoner("fp32"), "-o", baseline, "--samples", 8, "-n", 150, *common)
    assert made.code == 0, made.err
    report = here("verify", own.url, "--baseline", baseline, *common, "--json").report
    assert report["bundle"]["kind"] == "endpoint"
    assert report["gate"]["result"]["outcome"] != "fail"
    right = [report[name]["accuracy"]["value"] for name in ("reference_result", "bundle_result")]
    assert right[1] == pytest.approx(right[0], abs=0.25)
