"""The application's own colours: calm, dark, one accent for what is alive and one for what the model thinks."""

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
        "footer-background": "#171c25",
        "footer-key-foreground": "#5fafd7",
        "block-cursor-background": "#5fafd7",
        "input-selection-background": "#5fafd7 35%",
    },
)
