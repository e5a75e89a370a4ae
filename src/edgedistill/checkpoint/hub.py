"""Hub repositories: the few files that an export needs, through huggingface_hub and its cache.

Honours what huggingface_hub honours: HF_HOME, HF_TOKEN and saved logins, HF_HUB_OFFLINE, HF_ENDPOINT.
"""

from __future__ import annotations

import contextlib
import errno
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.errors import EdgedistillError, ModelNotFoundError, OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgedistill.progress import Progress

# Weights under their standard names only: repositories often hold the same model in further formats.
PATTERNS = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "README.md",
    "LICENSE*",
    "LICENCE*",
    "NOTICE*",
    "USE_POLICY.md",
)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A repository's files on this disk and the commit hash they are of."""

    path: Path
    commit: str


def download(repo: str, revision: str | None, *, offline: bool = False, progress: Progress | None = None) -> Snapshot:
    """Bring ``repo`` (``org/name``) at ``revision`` (branch, tag, commit; None: the default branch) into the hub cache.

    Without a network, or with ``offline``, what the cache holds is used. Raises ModelNotFoundError if the repository
    or revision does not exist, is gated, or cannot be reached and is not cached; OutputError if the disk is full.
    """
    from huggingface_hub import constants, snapshot_download

    offline = offline or bool(constants.HF_HUB_OFFLINE)
    with hub_errors(repo, revision, offline=offline), quiet():
        path = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=list(PATTERNS),
            local_files_only=offline,
            tqdm_class=bar(progress),
        )
    return Snapshot(Path(path), Path(path).name)


@contextlib.contextmanager
def hub_errors(repo: str, revision: str | None = None, *, offline: bool = False) -> Iterator[None]:
    """Within, turn what huggingface_hub raises about ``repo`` into one clear ModelNotFoundError or OutputError."""
    from huggingface_hub import constants, errors

    name = f"{repo}@{revision}" if revision else repo
    try:
        yield
    except errors.GatedRepoError as error:
        raise ModelNotFoundError(
            f"{repo} is gated: its owner asks for your consent.",
            hint=f"Accept the terms at {constants.ENDPOINT}/{repo}, then set HF_TOKEN or run: hf auth login",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFoundError(
            f"{repo} has no revision {revision}.", hint="Name a branch, a tag or a commit hash."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"The hub has no model {repo}, or it is private.",
            hint="Check the name; for a private model set HF_TOKEN or run: hf auth login",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(name, constants.ENDPOINT, offline) from error
    except errors.HFValidationError as error:
        raise ModelNotFoundError(f"{repo} is not a hub id ({error}).", hint="Hub ids look like org/name.") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EDQUOT):
            raise OutputError(
                f"{constants.HF_HUB_CACHE}: cannot be written ({error.strerror}).",
                hint="Free some disk space, or choose another cache with HF_HOME.",
            ) from error
        raise _failed(name, error) from error
    except EdgedistillError:
        raise
    except Exception as error:
        # The HTTP library below huggingface_hub changes with its version, and so do its errors.
        raise _failed(name, error) from error


def _unreachable(name: str, endpoint: str, offline: bool) -> ModelNotFoundError:
    if offline:
        return ModelNotFoundError(
            f"{name} is not in the hub cache, and offline mode forbids downloading it.",
            hint="Run once without --offline and without HF_HUB_OFFLINE.",
        )
    return ModelNotFoundError(
        f"{name} is not in the hub cache, and {endpoint} cannot be reached.",
        hint="Check the network, or pass a local directory or GGUF file.",
    )


def _failed(name: str, error: Exception) -> ModelNotFoundError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return ModelNotFoundError(
        f"{name} could not be downloaded: {reason.rstrip('.')}.", hint="Try again: finished files are kept."
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence huggingface_hub's own progress bars: only the command line draws."""
    utils = _utils()
    if utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


def bar(progress: Progress | None) -> Any:
    """A progress bar class that forwards finished files to ``progress`` and draws nothing."""
    lock = threading.Lock()
    base = _utils().tqdm

    class Bar(base):  # type: ignore[misc, valid-type]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            # Later versions of huggingface_hub make a second bar of this class, for bytes.
            self._open = progress is not None and kwargs.get("unit") != "B"
            super().__init__(*args, **(kwargs | {"disable": True}))
            if progress is not None and self._open:
                progress.begin("download", int(kwargs.get("total") or 0), "items")

        def update(self, n: float | None = 1) -> None:
            if progress is not None and self._open:
                with lock:  # called by the threads that download
                    progress.advance(int(n or 0))

        def __iter__(self) -> Iterator[Any]:
            for item in self.iterable:
                yield item
                self.update()

        def close(self) -> None:
            if progress is not None and getattr(self, "_open", False):
                self._open = False
                progress.end()
            super().close()

    return Bar


def _utils() -> Any:
    from huggingface_hub import utils

    return utils
