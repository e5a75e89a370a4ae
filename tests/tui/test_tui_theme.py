"""The application's colours can be read by everybody: WCAG's contrast of 4.5:1 for every text on every ground."""

from __future__ import annotations

import pytest
from textual.color import Color
from textual.theme import Theme

from edgedistill_tui.theme import EDGEDISTILL, EDGEDISTILL_LIGHT

TEXTS = ("foreground", "primary", "secondary", "accent", "success", "warning", "error", "text-muted", "text-error")
GROUNDS = ("background", "surface", "panel", "footer-background")
PAIRS = [("footer-key-foreground", "footer-background"), ("background", "primary")]


def luminance(color: Color) -> float:
    """Relative luminance (WCAG 2.2)."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color.normalized]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def contrast(one: str, other: str) -> float:
    a, b = sorted((luminance(Color.parse(one)), luminance(Color.parse(other))))
    return (b + 0.05) / (a + 0.05)


@pytest.mark.parametrize("theme", [EDGEDISTILL, EDGEDISTILL_LIGHT], ids=lambda theme: theme.name)
def test_every_text_stands_out_from_every_ground(theme: Theme) -> None:
    colors = theme.to_color_system().generate()
    pairs = [(text, ground) for text in TEXTS for ground in GROUNDS] + PAIRS
    weak = {pair: contrast(colors[pair[0]], colors[pair[1]]) for pair in pairs}
    assert {pair: round(ratio, 2) for pair, ratio in weak.items() if ratio < 4.5} == {}
    assert luminance(Color.parse(colors["background"])) > 0.5 or theme.dark
