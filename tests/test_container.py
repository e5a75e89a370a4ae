"""The Dockerfile: linted, its command one that exists, its files those of the wheel; built where docker runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import tomllib
import urllib.error
import urllib.request
from pathlib import Path
from typing import NoReturn

import pytest

from edgedistill.cli.parser import parse

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instruction(name: str) -> list[str]:
    """The JSON form of the last instruction of this name."""
    found: list[str] = json.loads(re.findall(rf"^{name} (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1])
    return found


def test_hadolint_finds_nothing() -> None:
    if (hadolint := shutil.which("hadolint")) is None:
        pytest.skip("hadolint is not installed: the Dockerfile was not linted")
    done = subprocess.run([hadolint, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_its_command_is_one_of_ours() -> None:
    program, *arguments = instruction("ENTRYPOINT") + instruction("CMD")
    assert program == "edgedistill"
    args = parse(arguments)
    assert args is not None
    assert (args.verb, str(args.bundle), args.host, args.port) == ("serve", "/bundle", "0.0.0.0", 8080)
    assert "EXPOSE 8080" in DOCKERFILE


def test_it_installs_extras_that_exist_and_runs_as_nobody_in_particular() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert re.search(r"^USER [1-9]\d*$", DOCKERFILE, re.MULTILINE)


def test_what_is_copied_is_what_the_wheel_is_made_of() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = {"pyproject.toml", "README.md", "constraints.txt", "LICENSE"}
    wheel = build["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed |= {Path(path).parts[0] for path in (*wheel["packages"], *wheel["force-include"])}
    assert kept == needed


def unavailable(what: str) -> NoReturn:
    """Skip and say so; where workflows run docker is expected, and a skip would look like a pass."""
    message = f"{what}: the image was neither built nor asked"
    if os.environ.get("GITHUB_ACTIONS"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.mark.slow
def test_the_image_answers(reasoner_dir: Path) -> None:
    if (docker := shutil.which("docker")) is None:
        unavailable("docker is not installed")
    info = subprocess.run([docker, "info"], capture_output=True, text=True, check=False)
    if info.returncode != 0:
        unavailable(f"docker does not answer ({info.stderr.strip()})")
    subprocess.run([docker, "build", "--tag", "edgedistill-test", str(ROOT)], check=True, timeout=900)
    start = [docker, "run", "--rm", "--detach", "--publish", "127.0.0.1::8080", "--env", "EDGEDISTILL_API_KEY=k"]
    name = subprocess.run(
        [*start, "--volume", f"{reasoner_dir}:/bundle:ro", "edgedistill-test"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    try:
        port = subprocess.run([docker, "port", name, "8080"], capture_output=True, text=True, check=True).stdout
        address = f"http://127.0.0.1:{port.strip().rpartition(':')[2]}"
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5)
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(1)
        body = json.dumps({"messages": [{"role": "user", "content": "What is 17 + 25?"}], "temperature": 0}).encode()
        headers = {"Content-Type": "application/json", "Authorization": "Bearer k"}
        asked = urllib.request.Request(f"{address}/v1/chat/completions", body, headers)
        answer = json.load(urllib.request.urlopen(asked, timeout=120))
        assert "42" in answer["choices"][0]["message"]["content"]
    finally:
        subprocess.run([docker, "stop", name], capture_output=True, check=False)
