"""Bundles on the Hub: ``push`` uploads one, ``pull`` brings one back; every hash is compared on both ways."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bundle import own_directory
from edgedistill.bundle.bundle import MANIFEST, MODEL_CARD, Bundle
from edgedistill.bundle.manifest import Manifest
from edgedistill.bundle.signature import SIGNATURE
from edgedistill.bundle.staging import disk_errors
from edgedistill.checkpoint.hub import bar, hub_errors, quiet
from edgedistill.errors import ModelNotFoundError, PublishError, UsageError
from edgedistill.export.layouts import BUNDLE_FOLDER, write_layout

if TYPE_CHECKING:
    from edgedistill.progress import Progress


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was uploaded: the repository, its address, the commit, and the identity of the bundle."""

    repository: str
    url: str
    commit: str
    identity: str


def push(
    bundle: str | Path,
    repository: str,
    *,
    layout: str | None = None,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    trusted: str | Path | None = None,
    progress: Progress | None = None,
) -> Pushed:
    """Upload ``bundle`` to the Hub repository ``repository`` (``user/name``), which is made if it is not there.

    Args:
        bundle: Bundle directory; every hash is compared first.
        repository: Hub id.
        layout: Upload it in this layout (see ``export.layouts``); None: as it is.
        private: Make the repository private, if it is made.
        revision: Branch to commit to; None: the default one.
        message: Commit message.
        trusted: Public key that must have signed the bundle.
        progress: Receiver of progress.

    Raises:
        UsageError: Offline mode, or no login.
        BundleError: A damaged bundle.
        ModelNotFoundError, PublishError: The Hub refuses the repository or the upload, or cannot be reached.
    """
    from huggingface_hub import HfApi, constants, errors, get_token

    if constants.HF_HUB_OFFLINE:
        raise UsageError("push needs the Hub, and offline mode forbids it.", hint="Unset HF_HUB_OFFLINE.")
    if get_token() is None:
        raise UsageError("push needs a login on the Hub.", hint="Set HF_TOKEN, or run: hf auth login")
    opened = Bundle.open(bundle, check="full", trusted=trusted, progress=progress)
    with tempfile.TemporaryDirectory(prefix="edgedistill-push-") as scratch, hub_errors(repository), quiet():
        folder = opened.path
        if layout is not None:
            folder = Path(scratch) / "layout"
            write_layout(opened, layout, folder, progress=progress)
        api = HfApi()
        try:
            url = api.create_repo(repository, private=private, exist_ok=True)
            if progress is not None:
                progress.begin("uploading", 1, "items")
            done = api.upload_folder(
                repo_id=url.repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=message or f"{opened.manifest.source.get('name', 'A model')} as a bundle of edgedistill",
                ignore_patterns=[".*"],
            )
            if progress is not None:
                progress.advance(1)
                progress.end()
        except errors.HfHubHTTPError as error:
            status = getattr(error.response, "status_code", None)
            if status in (401, 403):
                raise PublishError(
                    f"The Hub refuses to write to {repository} (status {status}).",
                    hint="Use a token with the right to write there: set HF_TOKEN, or run hf auth login",
                ) from error
            raise PublishError(
                f"The Hub refuses the upload to {repository}: {_first_line(error)}.", hint="Nothing was published."
            ) from error
    return Pushed(url.repo_id, str(url), done.oid, opened.identity())


def pull(
    repository: str,
    out: str | Path,
    *,
    revision: str | None = None,
    trusted: str | Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Bring the bundle in the Hub repository ``repository`` to the directory ``out``; the opened bundle.

    Only files that its manifest lists are fetched, and ``out`` appears once every hash has been compared.

    Args:
        repository: Hub id; the bundle lies at its top, or in the folder ``edgedistill``.
        out: A directory that does not exist, or is empty.
        revision: Branch, tag or commit; None: the default branch.
        trusted: Public key that must have signed the bundle.
        progress: Receiver of progress.

    Raises:
        ModelNotFoundError: No such repository, or no bundle in it; it cannot be reached and is not in the cache.
        BundleError: What was fetched is not what the manifest lists, or not signed.
        OutputError: ``out`` is in use or cannot be written.
    """
    from huggingface_hub import constants, snapshot_download

    target = Path(out)
    offline = bool(constants.HF_HUB_OFFLINE)
    with disk_errors(target), own_directory.appearing(target) as partial:
        with hub_errors(repository, revision, offline=offline), quiet():
            folder, path, commit = _manifest(repository, revision, offline)
            manifest = Manifest.from_json(path.read_bytes())
            names = [entry.name for entry in manifest.files] + [SIGNATURE, MODEL_CARD]
            prefix = f"{folder}/" if folder else ""
            snapshot = snapshot_download(
                repository,
                revision=commit,
                allow_patterns=[f"{prefix}{name}" for name in names],
                local_files_only=offline,
                tqdm_class=bar(progress),
            )
        shutil.copyfile(path, partial / MANIFEST)
        for name in names:
            if (found := Path(snapshot, folder, name)).is_file():
                shutil.copyfile(found, partial / name)
        Bundle.open(partial, check="full", trusted=trusted, progress=progress)
    return Bundle.open(target, trusted=trusted)


def _manifest(repository: str, revision: str | None, offline: bool) -> tuple[str, Path, str]:
    """The folder of the bundle in the repository, its manifest on this disk, and the commit."""
    from huggingface_hub import errors, hf_hub_download

    for folder in ("", BUNDLE_FOLDER):
        try:
            found = hf_hub_download(
                repository, MANIFEST, subfolder=folder or None, revision=revision, local_files_only=offline
            )
        except errors.LocalEntryNotFoundError:
            if offline and not folder:
                continue
            raise
        except errors.EntryNotFoundError:
            continue
        path = Path(found)
        return folder, path, path.parents[1 if folder else 0].name
    raise ModelNotFoundError(
        f"{repository} holds no bundle of edgedistill: there is no {MANIFEST} in it.",
        hint=f"To make a bundle of it: edgedistill export {repository} -o DIR",
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
