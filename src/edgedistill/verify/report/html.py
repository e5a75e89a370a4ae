"""The report as one HTML file: plots, tables and definitions, without scripts or anything from the network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgedistill.safe_text import escape
from edgedistill.verify.report.figures import figures, histograms
from edgedistill.verify.report.gate_text import audit_text
from edgedistill.verify.report.prompt_tables import LOST_HEADERS, LOST_TITLE, lost_rows, lost_text, prompt_rows
from edgedistill.verify.report.tables import (
    ENDPOINT_HEADERS,
    endpoint_rows,
    headline,
    metric_rows,
    path_text,
    settings_text,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgedistill.verify.report.model import VerifyReport
    from edgedistill.verify.types import ModelIdentity

_STYLE = """\
:root { --bg: #fdfdfc; --fg: #1f2328; --soft: #667; --grid: #e4e4e0; --reference: #7a7f8a; --bundle: #1769aa;
  --other: #b45f06; --limit: #b0b4bb; --pass: #1a7f37; --fail: #b3261e; --inconclusive: #9a6700; --card: #fff; }
@media (prefers-color-scheme: dark) { :root { --bg: #15181c; --fg: #e3e6ea; --soft: #9aa3ad; --grid: #2b3036;
  --reference: #9aa0aa; --bundle: #5fb0ee; --other: #f0a352; --limit: #565c64; --pass: #56c271; --fail: #f2766d;
  --inconclusive: #e0b341; --card: #1b1f24; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1280px; padding: 24px; background: var(--bg); color: var(--fg);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 18px; margin: 36px 0 8px; } h3 { font-size: 15px; margin: 0; }
p { margin: 6px 0; max-width: 80ch; } .soft, .note { color: var(--soft); font-size: 13px; }
.badge { display: inline-block; padding: 3px 12px; border-radius: 6px; color: #fff; font-weight: 600; }
.pass { background: var(--pass); } .fail { background: var(--fail); } .inconclusive { background: var(--inconclusive); }
td .badge { padding: 0 8px; font-size: 13px; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: 8px 0; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--grid); vertical-align: top; }
th { color: var(--soft); font-weight: 500; font-size: 13px; }
td { white-space: nowrap; } td:first-child, td:last-child { white-space: normal; } td:first-child { min-width: 15em; }
td.definition { color: var(--soft); font-size: 13px; max-width: 46ch; }
.plots { display: flex; flex-wrap: wrap; gap: 18px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--grid); border-radius: 8px; padding: 12px;
  max-width: 100%; } figure svg, details svg { max-width: 100%; height: auto; }
figcaption { max-width: 52ch; } details { border-bottom: 1px solid var(--grid); padding: 6px 0; }
summary { cursor: pointer; } pre { white-space: pre-wrap; margin: 6px 0; }
svg text { fill: var(--fg); font: 12px system-ui, sans-serif; } svg .tick { fill: var(--soft); font-size: 11px; }
svg .middle { text-anchor: middle; } svg .end, svg .name { text-anchor: end; }
svg .grid { stroke: var(--grid); } svg .axis { stroke: var(--soft); }
svg .error { stroke: var(--fg); stroke-width: 1.2; }
svg .mark { stroke: var(--soft); stroke-dasharray: 4 3; }
svg .line { fill: none; stroke-width: 2; } svg .line.reference { stroke: var(--reference); }
svg .line.bundle { stroke: var(--bundle); } svg .line.other { stroke: var(--other); }
svg .line.limit { stroke: var(--limit); stroke-dasharray: 5 4; }
svg .fill.reference, svg .dot.reference, svg .band.reference { fill: var(--reference); }
svg .fill.bundle, svg .dot.bundle, svg .band.bundle { fill: var(--bundle); }
svg .fill.other, svg .dot.other { fill: var(--other); } svg .fill.limit { fill: var(--limit); }
svg .band { opacity: 0.18; } svg .dot { opacity: 0.75; }
"""

_SECTIONS = (
    ("consistency", "Consistency"),
    ("tokens", "Token by token"),
    ("collapse", "Collapse audit"),
    ("power", "Power"),
)


def html(report: VerifyReport) -> str:
    """The complete page; every text of the report is escaped."""
    title = f"edgedistill {report.kind}: {report.bundle.name} on {report.suite.name}"
    body = "\n".join(
        [
            _head(report, title),
            _gate(report),
            _lost(report),
            _plots(report),
            _metrics(report),
            _prompts(report),
            _provenance(report),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _head(report: VerifyReport, title: str) -> str:
    against = f" against {_name(report.reference)}" if report.reference is not None else ""
    lines = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{_badge(headline(report), _kind(report))} {escape(_name(report.bundle) + against)}</p>",
        f"<p>{escape(report.claim)}</p>",
    ]
    lines[2:2] = [f'<p class="note">{escape(one.sentence)}</p>' for one in report.shipped]
    verdict = report.bundle_result.verdict
    lines.append(f"<p>{escape(report.bundle_result.verdict_reason if verdict is None else verdict.reason)}</p>")
    lines.append(
        f'<p class="soft">{report.suite.prompts} prompts, {report.settings.samples} samples each; '
        f"{escape(settings_text(report))}. {escape(path_text(report))}</p>"
    )
    lines += [f'<p class="note">{escape(note)}</p>' for note in report.notes]
    return "\n".join(lines)


def _kind(report: VerifyReport) -> str:
    return {0: "pass", 1: "fail"}.get(report.exit_code, "inconclusive")


def _badge(text: str, kind: str) -> str:
    return f'<span class="badge {kind}">{escape(text)}</span>'


def _name(identity: ModelIdentity | None) -> str:
    return "" if identity is None else f"{identity.name} ({identity.kind}, {identity.sha256[:12] or 'no hash'})"


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; ``rows`` are HTML, ``headers`` are text."""
    head = "".join(f"<th>{escape(header)}</th>" for header in headers)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _gate(report: VerifyReport) -> str:
    if report.gate is None:
        return ""
    rows = [[*map(escape, row[:-1]), _badge(row[-1], row[-1])] for row in endpoint_rows(report)]
    lines = ["<h2>Gate</h2>", _table(ENDPOINT_HEADERS, rows), "<ul>"]
    lines += [f"<li>{escape(reason)}</li>" for reason in report.gate.reasons]
    lines.append(f"</ul><p>{escape(report.gate.power)}</p>")
    if report.gate.decide:
        lines.append(f"<p><strong>What would decide it:</strong> {escape(report.gate.decide)}</p>")
    return "\n".join(lines)


def _lost(report: VerifyReport) -> str:
    if not report.lost_most:
        return ""
    rows = [[*map(escape, row)] for row in lost_rows(report)]
    return f'<h2>{LOST_TITLE}</h2>{_table(LOST_HEADERS, rows)}<p class="note">{escape(lost_text(report))}</p>'


def _plots(report: VerifyReport) -> str:
    made = figures(report)
    lines = []
    for section, title in _SECTIONS:
        here = [figure for figure in made if figure.section == section]
        if not here:
            continue
        lines.append(f'<h2>{title}</h2><div class="plots">')
        lines += [
            f"<figure><h3>{escape(figure.title)}</h3>{figure.svg}"
            f'<figcaption class="note">{escape(figure.note)}</figcaption></figure>'
            for figure in here
        ]
        lines.append("</div>")
    return "\n".join(lines)


def _metrics(report: VerifyReport) -> str:
    headers = ["metric", "reference", "bundle", "definition"]
    rows, before = [], ""
    for row in metric_rows(report):
        told = row.definition if row.key != before else ""  # once for all rows that it holds for
        before = row.key
        rows.append([*map(escape, (row.label, row.reference, row.bundle)), f'<span class="soft">{escape(told)}</span>'])
    if report.reference is None:
        headers.remove("reference")
        rows = [[row[0], *row[2:]] for row in rows]
    level = f"Intervals cover {100 * report.settings.level:g} %; over prompts unless the definition says otherwise."
    return f'<h2>Metrics</h2><p class="soft">{level}</p>{_table(headers, rows)}'


def _prompts(report: VerifyReport) -> str:
    after = {row.prompt_id: row for row in report.bundle_result.prompts}
    found = histograms(report)
    what = "the answers moved most" if report.reference is not None else "of the highest entropy"
    lines = [f'<h2>Prompts</h2><p class="soft">{len(found)} of {len(report.prompts)}, {what} first.</p>']
    for prompt, svg in found:
        row = after[prompt.prompt_id]
        facts = [f"agreement {row.agreement.value:.3f}", f"entropy {row.entropy.value:.3f} bits"]
        if row.accuracy is not None:
            facts.append(f"accuracy {100 * row.accuracy.value:.0f} %")
        if prompt.lost is not None and prompt.gained is not None:
            facts.append(f"{prompt.lost} lost, {prompt.gained} gained")
        if prompt.kl is not None:
            facts.append(f"KL {prompt.kl.value:.4f} nats")
        tags = f" ({', '.join(prompt.tags)})" if prompt.tags else ""
        lines.append(
            f"<details><summary>{escape(prompt.prompt_id + tags)} "
            f'<span class="soft">{escape("; ".join(facts))}</span></summary>'
            f"<pre>{escape(prompt.question)}</pre>{svg}{_numbers(report, prompt.prompt_id)}</details>"
        )
    return "\n".join(lines)


def _numbers(report: VerifyReport, prompt_id: str) -> str:
    """The table of one prompt."""
    rows = [[*map(escape, (row.label, row.reference, row.bundle))] for row in prompt_rows(report, prompt_id)]
    headers = ["over samples", "reference", "bundle"]
    if report.reference is None:
        headers.remove("reference")
        rows = [[row[0], row[2]] for row in rows]
    return _table(headers, rows)


def _provenance(report: VerifyReport) -> str:
    pairs = [("made", report.created), ("suite", f"{report.suite.name} {report.suite.sha256}")]
    for role, identity in (("bundle", report.bundle), ("reference", report.reference)):
        if identity is not None:
            facts = ", ".join(f"{key} {value}" for key, value in identity.details.items())
            pairs.append((role, f"{identity.kind} {identity.name}, weights {identity.sha256}; {facts}"))
            pairs.append((f"tokenizer of the {role}", identity.tokenizer_sha256))
    for role, audit in (("", report.sampler), (" of the reference", report.reference_sampler)):
        if audit is not None:
            pairs.append((f"sampler audit{role}", audit_text(audit)))
    pairs += [*report.versions.items(), *report.machine.items()]
    return f"<h2>Provenance</h2>{_table(('what', 'value'), [[escape(k), escape(v)] for k, v in pairs])}"
