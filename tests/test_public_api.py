"""The Python API as its users see it: names, signatures, what a type checker refuses, one spelling for one thing."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import subprocess
import sys
import typing
from pathlib import Path
from types import ModuleType

import pytest

import edgedistill
from edgedistill.errors import UsageError
from edgedistill.renamed import RenamedWarning, current_keys

SHORT = edgedistill.GenerationSettings(max_new_tokens=3)
VERBS = {
    "export": edgedistill.ExportOptions,
    "plan": edgedistill.PlanOptions,
    "compare": edgedistill.CompareOptions,
    "tune": edgedistill.TuneOptions,
}


def test_the_package_lists_its_names_and_nothing_else() -> None:
    assert dir(edgedistill) == sorted(edgedistill.__all__)
    for name in edgedistill.__all__:
        assert not isinstance(getattr(edgedistill, name), ModuleType)


def test_verbs_stay_functions_when_packages_of_their_name_are_imported() -> None:
    for name in ("export", "verify", "tune"):
        module = importlib.import_module(f"edgedistill.{name}")
        assert isinstance(module, ModuleType)
        assert inspect.isfunction(getattr(edgedistill, name))


@pytest.mark.parametrize("verb", VERBS)
def test_keywords_are_the_fields_of_the_options(verb: str) -> None:
    parameters = inspect.signature(getattr(edgedistill, verb)).parameters
    for field in dataclasses.fields(VERBS[verb]):
        assert parameters[field.name].default == field.default, field.name
        assert parameters[field.name].annotation == field.type, field.name
    assert parameters["options"].default is None
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters.values())


def test_keywords_beside_options_are_refused(tmp_path: Path) -> None:
    options = edgedistill.ExportOptions(format="int8")
    with pytest.raises(UsageError, match=r"force.*dataclasses.replace"):
        edgedistill.export("tiny-reasoner", tmp_path / "out", force=True, options=options)
    with pytest.raises(TypeError, match="wieght"):
        edgedistill.export("tiny-reasoner", tmp_path / "out", wieght_format="int8")  # type: ignore[call-arg]


SCRIPT = """\
import edgedistill

result = edgedistill.export("tiny-reasoner", "out", format="int8", context=512)
reveal_type(result)
edgedistill.export("tiny-reasoner", "out", wieght_format="int8")
edgedistill.plan("tiny-reasoner", context="long")
edgedistill.compare("tiny-reasoner", round=3)
edgedistill.tune("bundle", "out", step=3)
edgedistill.open_bundle("bundle", thread=1)
"""


def test_a_type_checker_knows_the_api(tmp_path: Path) -> None:
    script = tmp_path / "user.py"
    script.write_text(SCRIPT)
    root = Path(edgedistill.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--cache-dir", tmp_path / "cache",
         "--follow-imports", "silent", script],
        env={"MYPYPATH": str(root), "PATH": ""}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert 'Revealed type is "edgedistill.export.pipeline.ExportResult"' in done.stdout
    wrong = {line.split(":")[1]: line for line in done.stdout.splitlines() if "error" in line and "user.py" in line}
    assert set(wrong) == {"5", "6", "7", "8", "9"}, done.stdout
    assert 'Unexpected keyword argument "wieght_format"' in wrong["5"]
    assert 'incompatible type "str"' in wrong["6"]


def test_options_are_frozen() -> None:
    for kind in VERBS.values():
        options = kind()
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(options, dataclasses.fields(kind)[0].name, None)


def test_old_keywords_go_on_working_with_a_warning(tiny_bundle_dir: Path) -> None:
    old: typing.Any = edgedistill.VerifyOptions
    with pytest.warns(RenamedWarning, match="keyword mode of VerifyOptions is called numerics now"):
        options = old(mode="exact")
    assert options.numerics == "exact"
    with edgedistill.open_bundle(tiny_bundle_dir) as model:
        generate: typing.Any = model.generate
        with pytest.warns(RenamedWarning, match="numerics"):
            found = generate("hi", settings=SHORT, mode="exact")
        assert found.numerics == "exact"
        with pytest.raises(TypeError, match="old name"):
            generate("hi", settings=SHORT, mode="exact", numerics="fast")


def test_old_keys_of_files_are_read_with_a_warning() -> None:
    with pytest.warns(RenamedWarning, match="the baseline is of an earlier version: mode is called numerics now"):
        found = current_keys({"seed": 1, "mode": "exact"}, {"mode": "numerics"}, "the baseline")
    assert found == {"seed": 1, "numerics": "exact"}
