"""Traces: token sequences that stand for what a model reads and writes, for calibration, tuning and comparison.

Start at ``generate.self_generated`` (a bundle's own replies) and ``generate.from_file``; ``traces.Traces`` is the
data and its file, ``prompts.calibration_prompts`` the built-in questions, ``prompts.built_in_texts`` the texts.

Never imports ``export``, ``workflow`` or ``cli``.
"""
