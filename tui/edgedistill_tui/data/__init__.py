"""Data of the terminal UI on disk: sessions, settings, known bundles, profiler runs.

Start at ``store.Store`` (sessions in SQLite), ``session.Session``, ``config.Config`` and ``bundles.Registry``.

Never imports ``edgedistill_tui.screens`` or ``edgedistill_tui.widgets``: it draws nothing.
"""
