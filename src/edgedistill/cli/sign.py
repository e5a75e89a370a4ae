"""``edgedistill sign``: sign a bundle, or make keys, so that devices can refuse what their owner did not sign."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgedistill.bundle import signature
from edgedistill.bundle.bundle import MANIFEST, Bundle
from edgedistill.bundle.manifest import Manifest
from edgedistill.bundle.staging import replace_file
from edgedistill.cli import console
from edgedistill.cli.bundle_options import trusting
from edgedistill.errors import BundleError, UsageError

if TYPE_CHECKING:
    import argparse

EXAMPLES = """\
examples:
  edgedistill sign --new-key release.key              makes release.key and release.key.pub
  edgedistill sign my-bundle --key release.key        compares every hash, then writes my-bundle/manifest.sig
  edgedistill run my-bundle --trusted-key release.key.pub "What is 17 + 25?"
  export EDGEDISTILL_TRUSTED_KEY=/etc/edgedistill/release.key.pub    every command opens signed bundles only

Keys are Ed25519, as PEM or as ssh-keygen -t ed25519 makes them. Keep the private one off the device."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``sign``."""
    parser.add_argument("bundle", type=Path, nargs="?", metavar="BUNDLE", help="bundle directory")
    keys = parser.add_mutually_exclusive_group(required=True)
    keys.add_argument("--key", type=Path, metavar="FILE", help="private key to sign with")
    keys.add_argument("--new-key", type=Path, metavar="FILE", help="make this private key and FILE.pub first")
    parser.add_argument("--json", action="store_true", help="print what was signed as JSON")


def run(args: argparse.Namespace) -> int:
    """Make keys, sign, or both."""
    if args.bundle is None and args.new_key is None:
        raise UsageError("There is no BUNDLE to sign.", hint="Try: edgedistill sign my-bundle --key FILE")
    key = args.key or args.new_key
    bundle = _checked(args.bundle) if args.bundle is not None else None  # before a key is made for nothing
    public = signature.new_key(key) if args.new_key is not None else None
    if bundle is not None:
        content = (bundle.path / MANIFEST).read_bytes()
        if Manifest.from_json(content.decode("utf-8")) != bundle.manifest:
            raise BundleError(f"{bundle.path} was replaced by another bundle in the meantime.")
        replace_file(bundle.path, signature.SIGNATURE, signature.sign(content, key))
    if args.json:
        console.out_json(
            {
                "bundle": None if bundle is None else str(bundle.path),
                "identity": None if bundle is None else bundle.identity(),
                "public_key": None if public is None else str(public),
            }
        )
        return 0
    if public is not None:
        console.out(f"keys      {key} (private, keep it), {public} (for devices)")
    if bundle is not None:
        console.out(f"signed    {bundle.path}")
        console.out(f"identity  {bundle.identity()}")
    return 0


def _checked(path: Path) -> Bundle:
    """The bundle, every hash compared; it need not be signed yet."""
    with trusting(None), console.progress() as progress:
        return Bundle.open(path, check="full", progress=progress)
