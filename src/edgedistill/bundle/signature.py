"""Signatures of bundles: an owner signs the manifest, which holds the hash of every file, and a device checks it.

``manifest.sig`` lies beside the manifest: JSON with ``format``, ``algorithm``, ``public_key`` (for a message, never
trusted) and ``signature``, base64, Ed25519 (RFC 8032) over a fixed prefix and the manifest's bytes. Keys are PEM files
or OpenSSH's. The package ``cryptography`` computes; it is the extra ``sign``.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgedistill.errors import BundleError, OutputError, UsageError
from edgedistill.extras import missing

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

SIGNATURE = "manifest.sig"
TRUSTED_KEY = "EDGEDISTILL_TRUSTED_KEY"
"""Environment variable: file of the public key that every bundle opened here must be signed with."""

_FORMAT = 1
_PREFIX = b"edgedistill bundle manifest signature 1\n"


def trusted_key(given: str | Path | None = None) -> Path | None:
    """The public key's file that bundles must be signed with: ``given``, or that of the environment; None: any goes."""
    named = given if given is not None else os.environ.get(TRUSTED_KEY)
    return Path(named) if named else None


def sign(manifest: bytes, key: Path) -> str:
    """The text of ``manifest.sig`` for the manifest's bytes, signed with the private key in ``key``.

    Raises:
        UsageError: No such key, or one of another kind.
    """
    private = _private_key(key)
    content = {
        "format": _FORMAT,
        "algorithm": "ed25519",
        "public_key": base64.b64encode(_raw(private.public_key())).decode(),
        "signature": base64.b64encode(private.sign(_PREFIX + manifest)).decode(),
    }
    return json.dumps(content, indent=2) + "\n"


def verify_signature(root: Path, manifest: bytes, signature: bytes | None, key: Path) -> None:
    """Raises BundleError unless ``signature``, the content of ``manifest.sig``, is one of ``manifest`` by ``key``."""
    public = public_key(key)
    from cryptography.exceptions import InvalidSignature

    hint = f"Ask its owner for a signed copy, or sign your own: edgedistill sign {root} --key FILE"
    if signature is None:
        raise BundleError(f"{root} is not signed; expected a signature by {key}.", hint=hint)
    try:
        raw = json.loads(signature)
        if raw["format"] != _FORMAT or raw["algorithm"] != "ed25519":
            raise ValueError("an unknown format")
        value, signer = (base64.b64decode(raw[name], validate=True) for name in ("signature", "public_key"))
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise BundleError(f"{root / SIGNATURE} is malformed ({error}).", hint=hint) from error
    try:
        public.verify(value, _PREFIX + manifest)
    except InvalidSignature as error:
        what = "was altered since it was signed" if signer == _raw(public) else f"is signed by another key than {key}"
        raise BundleError(f"{root} {what}.", hint=hint) from error


def new_key(path: Path) -> Path:
    """Write a new private key to ``path``, readable by its owner alone; the path of the public one beside it (.pub).

    Raises:
        OutputError: A file is there already, or cannot be written.
    """
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    public = path.with_name(f"{path.name}.pub")
    secret = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    shown = private.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    if public.exists() or public.is_symlink():
        raise OutputError(f"{public} already exists.", hint="Choose another name for the key.")
    for target, content, mode in ((path, secret, 0o600), (public, shown, 0o644)):
        try:
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
        except FileExistsError as error:
            raise OutputError(f"{target} already exists.", hint="Choose another name for the key.") from error
        except OSError as error:
            raise OutputError(f"{target} cannot be written: {error.strerror}.", hint="Choose another name.") from error
    return public


def public_key(path: Path) -> Ed25519PublicKey:
    """The public key in a PEM or OpenSSH file; raises UsageError."""
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    content = _read(path)
    load: Any = form.load_ssh_public_key if content.startswith(b"ssh-") else form.load_pem_public_key
    key = _load(path, lambda: load(content))
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(
            f"{path} is not an Ed25519 public key.", hint="Make a pair with: edgedistill sign --new-key FILE"
        )
    return key


def _private_key(path: Path) -> Ed25519PrivateKey:
    _require_cryptography()
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    content = _read(path)
    load: Any = form.load_ssh_private_key if b"OPENSSH PRIVATE KEY" in content else form.load_pem_private_key
    key = _load(path, lambda: load(content, password=None))
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(
            f"{path} is not an Ed25519 private key.", hint="Make a pair with: edgedistill sign --new-key FILE"
        )
    return key


def _load(path: Path, load: Any) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return load()
    except TypeError as error:  # what cryptography raises for a key that needs a password
        raise UsageError(f"{path} is encrypted.", hint="Decrypt it, or sign with a key without a password.") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path} is not a key in PEM or OpenSSH's format.", hint="Make a pair with: edgedistill sign --new-key FILE"
        ) from error


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(1 << 16)
    except OSError as error:
        raise UsageError(f"Cannot read the key {path}: {error.strerror}.") from error


def _raw(key: Ed25519PublicKey) -> bytes:
    from cryptography.hazmat.primitives import serialization as form

    return key.public_bytes(form.Encoding.Raw, form.PublicFormat.Raw)


def _require_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise missing("Signatures need the package cryptography, which is not installed.", "sign") from error
