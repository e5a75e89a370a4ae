"""What MkDocs calls as it builds the site: pages that are made from the code, so that they cannot fall behind it.

A page is made by the function that ``PAGES`` names; where a file of the same name lies under docs/, its text comes
first and the generated part after it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import commands
import data_formats
import families
import profiles
import python_api
from mkdocs.structure.files import File, Files, InclusionLevel

import architecture

if TYPE_CHECKING:
    from collections.abc import Callable

    from mkdocs.config.defaults import MkDocsConfig

ROOT = Path(__file__).parents[2]
PAGES: dict[str, Callable[[], str]] = {
    "reference/commands.md": commands.page,
    "reference/python.md": python_api.page,
    "reference/families.md": families.page,
    "reference/profiles.md": lambda: profiles.page(ROOT / "profiles/README.md"),
    "reference/bundle.md": data_formats.bundle_page,
    "reference/report.md": data_formats.report_page,
    "reference/json.md": data_formats.json_page,
    "reference/suite.md": data_formats.suite_page,
    "explanation/architecture.md": lambda: architecture.page(ROOT),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages; called by MkDocs once it has listed docs/."""
    for name, page in PAGES.items():
        written = files.get_file_from_path(name)
        before = ""
        if written is not None:
            before = f"{written.content_string.rstrip()}\n\n"
            files.remove(written)
        files.append(File.generated(config, name, content=before + page(), inclusion=InclusionLevel.INCLUDED))
    for name, content in data_formats.schema_files().items():
        files.append(File.generated(config, f"reference/{name}", content=content))
    return files
