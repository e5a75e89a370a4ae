"""Widgets, one file each. A widget draws one thing, and gets the data for it from its screen.

Start at ``transcript.Transcript``, ``strip.MetricsStrip``, ``prompt.Prompt`` and ``nav.NavBar``.

Never imports ``edgedistill_tui.screens``.
"""
