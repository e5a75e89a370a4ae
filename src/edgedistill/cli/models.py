"""``edgedistill models``: the built-in models, and small real ones fetched into the user's cache.

Must not know: where models are stored or how they are fetched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.cli import console

if TYPE_CHECKING:
    import argparse

_EXAMPLES = """\
examples:
  edgedistill models list
  edgedistill models pull smollm2-135m
  edgedistill export smollm2-135m -o smollm2"""
