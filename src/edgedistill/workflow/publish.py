"""Bundles on the Hub: ``push`` uploads one, ``pull`` brings one back; every hash is compared on both ways."""

from __future__ import annotations

import json
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
class Published:
    """A bundle in a repository: its folder there, its manifest on this disk, the commit."""

    folder: str
    manifest: Path
    commit: str

    @property
    def size(self) -> int:
        """Bytes of the files that the manifest lists."""
        return sum(entry.size for entry in Manifest.from_json(self.manifest.read_bytes()).files)


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
    offline: bool = False,
    progress: Progress | None = None,
) -> Bundle:
    """Bring the bundle in the Hub repository ``repository`` to the directory ``out``; the opened bundle.

    Only files that its manifest lists are fetched, and ``out`` appears once every hash has been compared.

    Args:
        repository: Hub id; the bundle lies at its top, or in the folder ``edgedistill``.
        out: A directory that does not exist, or is empty.
        revision: Branch, tag or commit; None: the default branch.
        trusted: Public key that must have signed the bundle.
        offline: Take it from the hub's cache; HF_HUB_OFFLINE does the same.
        progress: Receiver of progress.

    Raises:
        ModelNotFoundError: No such repository, or no bundle in it; it cannot be reached and is not in the cache.
        BundleError: What was fetched is not what the manifest lists, or not signed.
        OutputError: ``out`` is in use or cannot be written.
    """
    from huggingface_hub import constants, snapshot_download

    target = Path(out)
    offline = offline or bool(constants.HF_HUB_OFFLINE)
    with disk_errors(target), own_directory.appearing(target) as partial:
        found = find_bundle(repository, revision, offline=offline)
        if found is None and offline:
            raise ModelNotFoundError(
                f"There is no bundle of {repository} in the hub cache, and offline mode forbids downloading it.",
                hint="Run once without --offline and without HF_HUB_OFFLINE.",
            )
        if found is None:
            raise ModelNotFoundError(
                f"{repository} holds no bundle of edgedistill: there is no {MANIFEST} of one in it.",
                hint=f"To make a bundle of it: edgedistill export {repository} -o DIR",
            )
        manifest = Manifest.from_json(found.manifest.read_bytes())
        names = [entry.name for entry in manifest.files] + [SIGNATURE, MODEL_CARD]
        with hub_errors(repository, revision, offline=offline), quiet():
            snapshot = snapshot_download(
                repository,
                revision=found.commit,
                allow_patterns=[f"{found.folder}/{name}" if found.folder else name for name in names],
                local_files_only=offline,
                tqdm_class=bar(progress),
            )
        shutil.copyfile(found.manifest, partial / MANIFEST)
        for name in names:
            if (file := Path(snapshot, found.folder, name)).is_file():
                shutil.copyfile(file, partial / name)
        Bundle.open(partial, check="full", trusted=trusted, progress=progress)
    return Bundle.open(target, trusted=trusted)


def find_bundle(repository: str, revision: str | None = None, *, offline: bool = False) -> Published | None:
    """The bundle in the Hub repository ``repository``, of which only the manifest is fetched; None: it holds none.

    Args:
        repository: Hub id.
        revision: Branch, tag or commit; None: the default branch.
        offline: Look into the hub's cache only, as with HF_HUB_OFFLINE; None then means that no manifest is there.

    Raises:
        ModelNotFoundError: No such repository or revision, or it cannot be reached.
    """
    from huggingface_hub import constants, errors, hf_hub_download

    offline = offline or bool(constants.HF_HUB_OFFLINE)
    for folder in ("", BUNDLE_FOLDER):
        with hub_errors(repository, revision, offline=offline), quiet():
            try:
                path = hf_hub_download(
                    repository, MANIFEST, subfolder=folder or None, revision=revision, local_files_only=offline
                )
            except errors.EntryNotFoundError as error:
                if isinstance(error, errors.LocalEntryNotFoundError) and not offline:
                    raise  # it cannot be reached
                continue
        manifest = Path(path)
        if _is_bundles(manifest):
            return Published(folder, manifest, manifest.parents[1 if folder else 0].name)
    return None


def _is_bundles(manifest: Path) -> bool:
    """Whether it is a bundle's: other programs have a manifest.json too."""
    try:
        raw = json.loads(manifest.read_bytes())
    except ValueError:
        return False
    return isinstance(raw, dict) and "schema_version" in raw


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".")
