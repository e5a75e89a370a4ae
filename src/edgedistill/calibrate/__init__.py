"""Calibration data without downloads: a model's own traces on built-in prompts, or the user's text.

``prompts.py`` holds the questions, ``traces.py`` turns them, or a file, into ``edgedistill.traces.Traces``.

Must not know: what the traces are used for.
"""
