"""The record of the short verification in a manifest, put into words.

{"status": "checked", "suite": {...}, "prompts": 30, "samples": 4, "accuracy": {...}, ...}
{"status": "skipped" | "failed", "reason": "..."}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

NONE = "not done"


def sentence(record: Mapping[str, Any]) -> str:
    """One line, without a full stop: the verdict and what it rests on, or why there is none."""
    status = record.get("status")
    if status in ("skipped", "failed"):
        return f"{status}: {str(record.get('reason', 'no reason recorded')).rstrip('.')}"
    if status != "checked":
        return NONE
    parts = [_verdict(record)]
    if (accuracy := _estimate(record, "accuracy", 100, " %", 1)) is not None:
        parts.append(f"accuracy {accuracy}")
    for key, label, unit in (("agreement", "agreement", ""), ("entropy_bits", "answer entropy", " bits")):
        if (shown := _estimate(record, key, 1, unit, 2)) is not None:
            parts.append(f"{label} {shown}")
    if record.get("outcome"):
        parts.append(f"{record['outcome']} against {record.get('reference', 'its reference')}")
    return f"{', '.join(parts)} ({record.get('prompts')} prompts x {record.get('samples')} samples)"


def distance_sentence(record: Mapping[str, Any]) -> str:
    """How far the bundle is from the original, in one line, without a full stop."""
    if not record:
        return "not measured"
    return (
        f"KL to the original {record['kl']:.2g} nats, same top token {100 * record['top1']:.0f} % "
        f"({record['tokens']} tokens of held-out text)"
    )


def section(record: Mapping[str, Any]) -> str:
    """A section of the model card, in Markdown."""
    lines = ["## Short verification", "", f"{sentence(record)[:1].upper()}{sentence(record)[1:]}."]
    if record.get("status") == "checked":
        lines += [
            "",
            f"A first look after the export, on {record.get('prompts')} questions of the suite "
            f"`{record.get('suite', {}).get('name')}`; intervals cover 95 %. `edgedistill verify` compares with the "
            "original and decides, `edgedistill audit` examines this model alone.",
        ]
    return "\n".join([*lines, ""])


def _verdict(record: Mapping[str, Any]) -> str:
    verdict = record.get("verdict")
    if verdict is None:
        return "no verdict"
    return str(verdict) if record.get("certain") else f"{verdict} (not certain)"


def _estimate(record: Mapping[str, Any], key: str, scale: float, unit: str, digits: int) -> str | None:
    found = record.get(key)
    if not found or found.get("value") is None:
        return None
    text = f"{scale * found['value']:.{digits}f}{unit}"
    interval = found.get("interval")
    if not interval or interval["low"] is None or interval["high"] is None:
        return text
    return f"{text} [{scale * interval['low']:.{digits}f}, {scale * interval['high']:.{digits}f}]"
