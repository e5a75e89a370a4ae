"""The page: whole, self-contained, and safe against what models write."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest
from report_support import make_report

from edgedistill.svg_plots import Axes, Bar, Series, bars, chart, ticks
from edgedistill.verify.report.figures import figures, histograms
from edgedistill.verify.report.html import html
from edgedistill.verify.report.model import VerifyReport
from edgedistill.verify.report.prompt_tables import prompt_rows

VOID = {"meta", "br", "hr", "img", "link", "input"}


class Balance(HTMLParser):
    """Tags closed in order, and every attribute that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def report() -> VerifyReport:
    return make_report()


def test_the_page_is_whole_and_loads_nothing(report: VerifyReport) -> None:
    page = html(report)
    found = Balance()
    found.feed(page)
    assert not found.open
    assert not found.loads
    assert "script" not in found.tags
    assert "url(" not in page
    assert "@import" not in page
    outside = re.findall(r"https?://[^\s\"'<]+", page)
    assert set(outside) <= {"http://www.w3.org/2000/svg"}


def test_it_shows_the_gate_the_plots_and_the_definitions(report: VerifyReport) -> None:
    page = html(report)
    for text in ("Gate", "KL by position", "Survival until", "Collapse panel", "Temperature sweep", "Power: accuracy"):
        assert text in page
    assert report.definitions["agreement"] in page.replace("&#x27;", "'")
    assert page.count("<svg") == len(figures(report)) + len(histograms(report))


def test_each_prompt_has_its_numbers_and_each_definition_stands_once(report: VerifyReport) -> None:
    page = html(report)
    rows = prompt_rows(report, report.prompts[0].prompt_id)
    texts = {row.label: (row.reference, row.bundle) for row in rows}
    assert {"accuracy", "pass@4", "maj@16", "answer entropy", "distance of answers", "flips"} <= texts.keys()
    assert texts["distance of answers"][0] == ""
    assert all(text in page for text in texts["answer entropy"])
    assert page.count("<th>over samples</th>") == page.count("<details>") == 40
    assert page.count(report.definitions["pass_at_k"]) == 1
    audit = make_report(audit=True)
    assert all(row.reference == "" for row in prompt_rows(audit, audit.prompts[0].prompt_id))


def test_an_audit_has_no_reference_and_no_gate() -> None:
    page = html(make_report(audit=True))
    assert "<h2>Gate</h2>" not in page
    assert "<th>reference</th>" not in page
    assert "Answer entropy per prompt" in page


def test_texts_of_models_are_escaped(report: VerifyReport) -> None:
    attack = "<script>alert(1)</script>\"'&"
    prompts = tuple(replace(p, question=attack, gold=attack, tags=(attack,)) for p in report.prompts)
    row = replace(report.bundle_result.prompts[0], histogram=((attack, 16),), majority_answer=attack)
    rows = (row, *report.bundle_result.prompts[1:])
    page = html(
        replace(
            report,
            prompts=prompts,
            claim=attack,
            bundle=replace(report.bundle, name=attack),
            bundle_result=replace(report.bundle_result, prompts=rows),
        )
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 10


def test_every_plot_is_well_formed_with_finite_coordinates(report: VerifyReport) -> None:
    made = [figure.svg for figure in figures(report)] + [svg for _, svg in histograms(report)]
    assert len(made) > 10
    for svg in made:
        root = ET.fromstring(svg)
        width, height = float(root.get("width", 0)), float(root.get("height", 0))
        for element in root.iter():
            for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy"):
                if (value := element.get(name)) is not None:
                    assert math.isfinite(float(value))
                    assert -1 <= float(value) <= max(width, height) + 1


def test_charts_of_odd_data() -> None:
    axes = Axes("x", "y")
    assert chart([Series("empty", "bundle", [])], axes) == ""
    assert chart([Series("nan", "bundle", [(0.0, math.nan)])], axes) == ""
    one = chart([Series("one", "bundle", [(3.0, 0.0)])], axes)
    ET.fromstring(one)
    log = chart([Series("log", "bundle", [(0.0, 0.0), (1.0, 1e-3), (2.0, 10.0)])], Axes("x", "y", log_y=True))
    ET.fromstring(log)
    assert bars([], top=1.0) == ""
    assert "nan" not in bars([("a", [Bar("bundle", math.nan, "-")])], top=1.0)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-3.0, 17.0), (0.0, 1e-6), (12.0, 123456.0)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 3 <= len(found) <= 9
    assert all(low - 1e-9 <= tick <= high * (1 + 1e-9) for tick in found)
    steps = {round((b - a) / (high - low), 6) for a, b in itertools.pairwise(found)}
    assert len(steps) == 1


def test_ticks_of_nothing() -> None:
    assert ticks(2.0, 2.0) == [2.0]
