"""``edgedistill tune`` as a user runs it: the gain, Ctrl-C, refusals in one line."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cli_support import environment, here

if TYPE_CHECKING:
    from pathlib import Path

# The command with a hook: after two updates it says so and waits for Ctrl-C or a line that follows it.
WAITING = """
import sys
from edgedistill.cli import main
from edgedistill.tune import loop
real = loop.Trainer._update
def update(trainer):
    if trainer.state.step == 2:
        print("in the middle", flush=True)
        sys.stdin.readline()
    real(trainer)
loop.Trainer._update = update
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(" ".join(f"{i} and {i * i % 7} of the tide," for i in range(100)))
    return path


def test_an_interrupted_run_says_how_to_go_on_and_does(
    tiny_bundle_dir: Path, tiny_checkpoint_dir: Path, text_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "tuned"
    arguments = ["tune", str(tiny_bundle_dir), "--reference", str(tiny_checkpoint_dir), "-o", str(out)]
    arguments += ["--calibration", str(text_file), "--steps", "6", "--length", "64", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, *arguments],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "in the middle\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate("\n", timeout=300)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted."
    assert f"To go on: edgedistill {' '.join(arguments)}" in err
    assert not out.exists()

    done = here(*arguments)
    assert done.code == 0, done.err
    assert done.json["steps"] == 6
    assert done.json["after"]["kl"] <= done.json["before"]["kl"]
    shown = here("inspect", out, "--verify")
    assert shown.code == 0
    assert f"-> {done.json['after']['kl']:.4f} nats" in shown.out
    assert "already holds" in here(*arguments).one_error()


def test_refusals_are_one_line(tiny_bundle_dir: Path, tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    start = ("tune", tiny_bundle_dir, "-o", tmp_path / "out")
    assert "--reference" in here(*start).one_error()
    assert "different" in here(*start, "--reference", "tiny-reasoner").one_error()
    assert "exclude" in here(*start, "--steps", 3, "--minutes", 1).one_error()
    assert "no calibration file" in here(
        *start, "--reference", tiny_checkpoint_dir, "--calibration", tmp_path / "none.txt"
    ).one_error()  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_without_pytorch_it_says_what_to_install(
    tiny_bundle_dir: Path, tiny_checkpoint_dir: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from edgedistill.cli import main\n"
        f"sys.exit(main(['tune', {str(tiny_bundle_dir)!r}, '-o', {str(tmp_path / 'out')!r}, "
        f"'--reference', {str(tiny_checkpoint_dir)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment(), timeout=300
    )
    assert done.returncode == 2
    assert "PyTorch" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr


def test_nothing_of_it_loads_pytorch_before_it_is_needed() -> None:
    code = "import edgedistill.tune.pipeline, edgedistill.tune.options, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, env=environment(), timeout=300).returncode == 0
