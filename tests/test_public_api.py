"""The Python API as its users see it: names, signatures, what a type checker refuses, one spelling for one thing."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import typing
from pathlib import Path
from types import ModuleType

import pytest

import edgedistill
from edgedistill.errors import UsageError
from edgedistill.renamed import RenamedWarning, current_keys
from edgedistill.tune.options import Deployed
from edgedistill.verify import run_procedures
from edgedistill.verify.types import Procedure

SHORT = edgedistill.GenerationSettings(max_new_tokens=3)
VERBS = {
    "export": edgedistill.ExportOptions,
    "plan": edgedistill.PlanOptions,
    "compare": edgedistill.CompareOptions,
    "tune": edgedistill.TuneOptions,
    "verify": edgedistill.VerifyOptions,
    "audit": edgedistill.AuditOptions,
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
        default = field.default_factory() if callable(field.default_factory) else field.default
        assert parameters[field.name].default == default, field.name
        assert parameters[field.name].annotation == field.type, field.name
    assert parameters["options"].default is None
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters.values())


def test_keywords_beside_options_are_refused(tmp_path: Path) -> None:
    options = edgedistill.ExportOptions(format="int8")
    with pytest.raises(UsageError, match=r"force.*dataclasses.replace"):
        edgedistill.export("tiny-reasoner", tmp_path / "out", force=True, options=options)
    with pytest.raises(TypeError, match="wieght"):
        edgedistill.export("tiny-reasoner", tmp_path / "out", wieght_format="int8")  # type: ignore[call-arg]


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


def test_notebooks_show_results_as_tables(tiny_checkpoint_dir: Path, tiny_bundle_dir: Path, tmp_path: Path) -> None:
    made = edgedistill.export(tiny_checkpoint_dir, tmp_path / "out", format="int8", verify=False)
    assert "<td>bits per weight</td>" in made._repr_html_()
    plan = edgedistill.plan(tiny_checkpoint_dir, format="int8,fp32", context=64, measure=False)._repr_html_()
    assert plan.count("<tr>") == 3
    assert "<th>weights in memory</th>" in plan
    assert "<th>memory at 64</th>" in plan
    with edgedistill.open_bundle(tiny_bundle_dir) as model:
        options = edgedistill.TrajectoryOptions(count=3, answers="free")
        solved = edgedistill.solve(model, "hi", options=options, settings=SHORT.replace(temperature=1.0))._repr_html_()
    assert solved.count("<tr>") == 4
    compared = edgedistill.compare(tiny_checkpoint_dir, format="int8", rounds=0, max_tokens=64)._repr_html_()
    assert compared.count("<tr>") == 3
    assert "KL(fp32 || format)" in compared
    before, after = (Deployed(kl, kl, kl, kl, 0.5, 10) for kl in (0.25, 0.125))
    tuned = edgedistill.TuneResult(tmp_path, made.manifest, before, after, 1, 1, 1, 1.0, "steps", ())._repr_html_()
    assert "<td>0.2500 [0.2500, 0.2500]</td><td>0.1250 [0.1250, 0.1250]</td>" in tuned


def test_answers_of_a_procedure_are_scored_by_keyword(tiny_bundle_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def score(bundle: Path, procedure: Procedure, **keywords: object) -> tuple[Path, Procedure, object]:
        return bundle, procedure, keywords["options"]

    monkeypatch.setattr(run_procedures, "verify_procedure", score)
    options = edgedistill.VerifyOptions(procedure="vote", trajectories=4, samples=3)
    scored: typing.Any = edgedistill.verify(tiny_bundle_dir, reference="fp32", options=options)
    assert scored == (tiny_bundle_dir, Procedure("vote", 4), options)
    scored = edgedistill.audit(tiny_bundle_dir, procedure="single", preset="fast")
    assert scored[1:] == (Procedure("single"), edgedistill.AuditOptions(procedure="single", preset="fast"))
    with pytest.raises(UsageError, match="trajectories belongs to the procedures"):
        edgedistill.audit(tiny_bundle_dir, trajectories=4)
    monkeypatch.undo()
    cluster: typing.Any = object()
    with pytest.raises(UsageError, match="one machine"):
        edgedistill.audit(tiny_bundle_dir, procedure="single", cluster=cluster)
