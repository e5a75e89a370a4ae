"""The application's own colour themes, dark and light, with one accent for activity and one for reasoning.

All text has a contrast of at least 4.5:1 with its background (WCAG 2.2, 1.4.3).
"""

from __future__ import annotations

from textual.theme import Theme

EDGEDISTILL = Theme(
    name="edgedistill",
    primary="#5fafd7",
    secondary="#87d7af",
    accent="#ffaf5f",
    foreground="#d8dee9",
    background="#12161d",
    surface="#171c25",
    panel="#1f2632",
    success="#87d7af",
    warning="#ffd787",
    error="#ff8787",
    dark=True,
    variables={
        "text-muted": "#9aa4b2",
        "text-error": "#ff8787",
        "footer-background": "#171c25",
        "footer-key-foreground": "#5fafd7",
        "block-cursor-background": "#5fafd7",
        "input-selection-background": "#5fafd7 35%",
    },
)

EDGEDISTILL_LIGHT = Theme(
    name="edgedistill-light",
    primary="#1f5f8b",
    secondary="#1c6b4a",
    accent="#8a4b00",
    foreground="#22262e",
    background="#fafaf7",
    surface="#f0efe9",
    panel="#e4e3dc",
    success="#1c6b4a",
    warning="#7a5200",
    error="#a61b1b",
    dark=False,
    variables={
        "text-muted": "#555b66",
        "text-error": "#a61b1b",
        "footer-background": "#f0efe9",
        "footer-key-foreground": "#1f5f8b",
        "block-cursor-background": "#1f5f8b",
        "block-cursor-foreground": "#fafaf7",
        "input-selection-background": "#1f5f8b 25%",
    },
)
