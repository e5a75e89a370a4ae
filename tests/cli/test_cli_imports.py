"""What may be loaded when: proved in a process of its own, where nothing else has imported anything."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from edgedistill.cli.parser import VERBS

if TYPE_CHECKING:
    from pathlib import Path

HEAVY = {"torch", "transformers", "onnx", "onnx_ir", "gguf", "sympy", "optimum", "peft", "onnxruntime_genai"}
SLOW = HEAVY | {"numpy", "rich", "textual", "onnxruntime", "tokenizers", "huggingface_hub", "jinja2", "safetensors"}


def loaded_after(code: str) -> set[str]:
    """Names of the top-level modules in memory after ``code``."""
    script = f"{code}\nimport sys\nprint('\\n'.join(sorted(m.partition('.')[0] for m in sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=True)
    return set(done.stdout.splitlines())


@pytest.mark.parametrize(
    "code",
    [
        "import edgedistill",
        "import edgedistill.runtime",
        "import edgedistill.runtime.model",
        "import edgedistill.trajectories",
        "import edgedistill.verify.run, edgedistill.verify.quick, edgedistill.cli.inspect, edgedistill.cli.bench",
        "import edgedistill.bundle.bundle, edgedistill.profile.profile",
        "import edgedistill.cli",
        "import edgedistill_tui, edgedistill_tui.app, edgedistill_tui.runtime_engine",
    ],
)
def test_the_light_parts_load_no_training_or_export_library(code: str) -> None:
    assert not loaded_after(code) & HEAVY


def test_every_verb_parses_without_the_library_it_needs_later() -> None:
    code = "from edgedistill.cli.parser import *\n" + "\n".join(
        f"m = load_verb({verb.name!r}); m.configure(Parser())" for verb in VERBS
    )
    assert not loaded_after(code) & SLOW


def test_the_runtime_loads_no_event_loop_and_no_template_engine() -> None:
    found = loaded_after("import edgedistill.cli.run, edgedistill.runtime.model")
    assert not found & {"asyncio", "ssl", "jinja2", "huggingface_hub", "rich", "email"}


def test_help_loads_nothing_slow() -> None:
    code = "import edgedistill.cli\ntry: edgedistill.cli.main(['--help'])\nexcept SystemExit: pass"
    assert not loaded_after(code) & SLOW


def test_export_is_callable_before_and_after_its_package_is_imported() -> None:
    loaded_after(
        "import edgedistill\nassert callable(edgedistill.export)\nimport edgedistill.export.pipeline\n"
        "assert callable(edgedistill.export)\nfrom edgedistill import export\nassert callable(export)"
    )


def test_the_python_of_the_readme(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    script = (
        "import edgedistill\n"
        f"source, out = {str(tiny_checkpoint_dir)!r}, {str(tmp_path)!r}\n"
        "for name in ('/a', '/b'): edgedistill.export(source, out + name, check=False, verify=False)\n"
        "model = edgedistill.open_bundle(out + '/b')\n"
        "settings = model.default_settings.replace(max_new_tokens=3)\n"
        "result = model.generate('What is 17 + 25?', settings=settings)\n"
        "assert isinstance(result.answer, str) and result.stats.new_tokens <= 3\n"
    )
    loaded_after(script)
    assert (tmp_path / "a" / "manifest.json").is_file()
