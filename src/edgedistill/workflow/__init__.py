"""Verbs that join several rooms: calibrate, export, then record a short verification.

Start at ``export.export``, which is ``edgedistill.export``; ``calibration_traces.traces_for`` makes the data of a
calibration.

Never imports ``tune``, ``comparison``, ``cli`` or ``edgedistill_tui``.
"""
