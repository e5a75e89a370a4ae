"""Verbs that join several rooms: calibrate, export, then record a short verification; bundles by name, and on the Hub.

Start at ``export.export``, which is ``edgedistill.export``; ``calibration_traces.traces_for`` makes the data of a
calibration. ``by_name.bundle_of`` finds or makes the bundle of a model that is named, ``publish.push`` and
``publish.pull`` take bundles to the Hub and back.

Never imports ``tune``, ``comparison``, ``cli`` or ``edgedistill_tui``.
"""
