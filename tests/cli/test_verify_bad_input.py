"""verify, audit and baseline on bad input, full disks and Ctrl-C: one clear line, exit code 2, nothing lost."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_support import COMMAND, SUITE_PROMPTS, Result, environment, here
from exporting import export
from safetensors.numpy import load_file, save_file

SMALL = ("--samples", 4, "--fast")


@pytest.fixture
def bundle(tiny_bundle_dir: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(tiny_bundle_dir, tmp_path / "spoilt"))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--samples", 1), "--samples is 1"),
        (("--prompts", 1), "--prompts is 1"),
        (("--margin", "acuracy=0.1"), "Did you mean accuracy?"),
        (("--margin", "accuracy=2"), "Margin `accuracy` is 2"),
        (("--margin", "accuracy=0"), "no difference at all"),
        (("--margin", "accuracy=nan"), "Margin `accuracy` is nan"),
        (("--margin", "length_ratio=0.5"), "expected more than 1"),
        (("--margin", "accuracy"), "NAME=NUMBER"),
        (("--margin", "accuracy=0.1", "--margin", "accuracy=0.2"), "twice"),
        (("--margin", "entropy_bits=64"), "less than 64"),
        (("--margin", "accuracy=0.1"), "has no gold answers, and the margin `accuracy` needs them"),
        (("--procedure", "vote", "--trajectories", 2, "--margin", "accuracy=0.1"), "has no gold answers"),
        (("--suite", "arithmetik"), "arithmetic"),
        (("--seed", -1), "--seed"),
        (("--fast", "--thorough"), "not allowed with"),
        (("--store", "x", "--no-store"), "exclude each other"),
        (("--html", "no/such/directory/x.html"), "mkdir -p"),
        (("--temperature", -1), "temperature"),
        # /proc takes no new files from anybody, root included.
        (("--out", "/proc"), "/proc/report.json cannot be written"),
        (("--out", "/proc/reports"), "choose another directory with --out"),
        (("--html", "/proc/x.html"), "choose another --html"),
        (("--store", "/proc/store"), "cannot be stored in /proc/store"),
    ],
)
def test_bad_options(
    arguments: tuple[object, ...], named: str, tiny_bundle_dir: Path, reference: Path, suite: Path
) -> None:
    given = [] if "--suite" in arguments else ["--suite", suite]
    refused = here("verify", tiny_bundle_dir, "--reference", reference, *given, *arguments)
    assert named.lower() in refused.one_error().lower()
    assert "sampling" not in refused.err


def test_a_job_summary_that_cannot_be_written_is_said_before_sampling(
    tiny_bundle_dir: Path, reference: Path, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/proc/summary.md")
    refused = here("verify", tiny_bundle_dir, "--reference", reference, "--suite", suite, "--github")
    assert "job summary /proc/summary.md cannot be written" in refused.one_error()
    assert "sampling" not in refused.err


def test_no_scores_below_none(reference: Path, suite: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.baseline"
    refused = here("baseline", "create", reference, "-o", output, "--suite", suite, "--scored-samples", -1)
    assert "--scored-samples is -1" in refused.one_error()
    assert "sampling" not in refused.err


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (['{"id": "a", "prompt": "x"}', '{"id": "a", "prompt": "y"}'], "`a` occurs more than once"),
        (['{"id": "a", "prompt": "x"}', "{nonsense"], "line 2"),
        (['{"id": "a", "prompt": "x", "answer": "1"}', '{"id": "b", "prompt": "y"}'], "no gold answer"),
        (['{"id": "a", "prompt": "x"}'], "at least 2"),
        ([], "no prompts"),
    ],
)
def test_bad_suites(tiny_bundle_dir: Path, lines: list[str], named: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text("\n".join(lines))
    assert named in here("audit", tiny_bundle_dir, "--suite", path, *SMALL, "--no-store").one_error()


def test_weights_that_were_altered_get_no_verdict(bundle: Path, reference: Path, suite: Path) -> None:
    """Samples and verdicts are kept under the hashes of the manifest."""
    path = bundle / "weights.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    common = ("--suite", suite, *SMALL, "--no-store")
    for command in (
        ("verify", bundle, "--reference", reference, *common),
        ("verify", reference, "--reference", bundle, *common),
        ("audit", bundle, *common),
        ("audit", bundle, "--procedure", "vote", *common),
        ("baseline", "create", bundle, "-o", bundle.parent / "x.baseline", *common),
    ):
        refused = here(*command)
        assert "weights.bin" in refused.one_error()
        assert "sampling" not in refused.err
    assert not (bundle.parent / "x.baseline").exists()


def test_another_vocabulary_is_refused(tiny_checkpoint_dir: Path, reference: Path, suite: Path, tmp_path: Path) -> None:
    """The same tokenizer over an embedding with rows to spare."""
    source = Path(shutil.copytree(tiny_checkpoint_dir, tmp_path / "padded"))
    tensors = load_file(source / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    tensors["model.embed_tokens.weight"] = np.concatenate([embedding, embedding[:8]])
    save_file(tensors, source / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 8}))
    bundle = tmp_path / "bundle"
    export(source, bundle, verify=False)
    refused = here("verify", bundle, "--reference", reference, "--suite", suite, *SMALL, "--no-store")
    assert "a vocabulary of" in refused.one_error()


def test_a_baseline_is_asked_for_what_it_has(
    tiny_bundle_dir: Path, reference: Path, suite: Path, tmp_path: Path
) -> None:
    path = tmp_path / "some.baseline"
    create = ("baseline", "create", reference, "--suite", suite, "--no-store", "--samples", 4, "--prompts", 12, "-o")
    assert here(*create, path).code == 0
    common = ("verify", tiny_bundle_dir, "--baseline", path, "--suite", suite, "--fast", "--no-store")
    assert "holds 12 prompts of the suite; this run needs 15" in here(*common, "--prompts", 15).one_error()
    fewer = here(*common, "--prompts", 10, "--json")
    assert fewer.code == 3, fewer.err
    assert fewer.json["suite"]["prompts"] == 10
    for target, named in ((path, "already exists"), (tmp_path, "is a directory"), ("/proc/x", "cannot be written")):
        refused = here(*create, target)
        assert named in refused.one_error()
        assert "sampling" not in refused.err


def stored(directory: Path) -> dict[str, list[tuple[str, int]]]:
    """Keys of the samples in every store."""
    found = {}
    for path in directory.iterdir():
        records = [json.loads(line.split(b" ", 1)[1]) for line in path.read_bytes().splitlines()[1:]]
        found[path.name] = [(r["sample"]["prompt_id"], r["sample"]["index"]) for r in records]
    return found


def same(one: Result, other: Result) -> None:
    """Two reports, up to when they were made."""
    first, second = one.json, other.json
    assert {**first, "created": ""} == {**second, "created": ""}


@pytest.fixture(scope="module")
def options(reference: Path, suite: Path) -> tuple[Any, ...]:
    return ("--reference", reference, "--suite", suite, *SMALL, "--json")


@pytest.fixture(scope="module")
def unhindered(tiny_bundle_dir: Path, options: tuple[Any, ...]) -> Result:
    """The same command without a store."""
    return here("verify", tiny_bundle_dir, *options, "--no-store")


def test_a_disk_that_fills_in_the_middle(
    tiny_bundle_dir: Path, options: tuple[Any, ...], unhindered: Result, tmp_path: Path
) -> None:
    """No file may grow beyond 8 KiB: the reference's samples do not fit, and later neither do the bundle's."""
    store = tmp_path / "store"
    command = ("verify", tiny_bundle_dir, *options)
    done = subprocess.run(
        [*COMMAND, *map(str, command), "--store", str(store)], capture_output=True, text=True, timeout=300,
        check=False, env=environment(), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10,) * 2),
    )  # fmt: skip
    message = Result(done.returncode, done.stdout, done.stderr).one_error()
    assert "cannot be written" in message
    assert "run the same command again" in message
    ((_, kept),) = stored_whole(store)
    assert 0 < kept < 4 * SUITE_PROMPTS
    assert f"The {kept} samples before are kept" in message
    same(here(*command, "--store", store), unhindered)
    for keys in stored(store).values():
        assert len(keys) == len(set(keys)) == 4 * SUITE_PROMPTS


def stored_whole(directory: Path) -> list[tuple[str, int]]:
    """Whole samples of every store, a torn end left out."""
    return [(path.name, path.read_bytes().count(b"\n") - 1) for path in directory.iterdir()]


def test_ctrl_c_in_the_middle(
    tiny_bundle_dir: Path,
    options: tuple[Any, ...],
    unhindered: Result,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from edgedistill.verify.sampling.store import SampleStore

    command = ("verify", tiny_bundle_dir, *options)
    append = SampleStore.append
    written: list[object] = []

    def interrupted(self: SampleStore, drawn: Any) -> None:
        append(self, drawn)
        written.append(drawn.key)
        if len(written) == 4 * SUITE_PROMPTS + 50:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SampleStore, "append", interrupted)
        done = here(*command, "--store", tmp_path / "store", interrupted=True)
    assert (done.code, done.out) == (130, "")
    assert done.err.splitlines()[-1] == "interrupted."
    assert sorted(len(keys) for keys in stored(tmp_path / "store").values()) == [50, 4 * SUITE_PROMPTS]
    same(here(*command, "--store", tmp_path / "store"), unhindered)
    for path in (tmp_path / "store").iterdir():
        assert len(set(stored(tmp_path / "store")[path.name])) == 4 * SUITE_PROMPTS
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        assert "damaged: line" in here(*command, "--store", tmp_path / "store").one_error()
        assert path.read_bytes() == content  # left for whoever wants to look at it
        break
