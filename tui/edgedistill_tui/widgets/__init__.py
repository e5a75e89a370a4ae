"""Widgets: one file each, each draws one thing and is given what it draws.

Start at ``transcript.Transcript``, ``strip.MetricsStrip``, ``prompt.Prompt`` and ``nav.NavBar``.

Never imports ``edgedistill_tui.screens``.
"""
