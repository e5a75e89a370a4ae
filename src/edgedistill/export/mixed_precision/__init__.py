"""Chooses a format for every matrix within a budget of bytes or of KL divergence.

Start at ``choose.choose_formats``. ``sensitivity.measure`` quantizes one matrix at a time and measures the change of
the output; ``sensitivity_estimate.estimate`` does so for four layers of a large model and estimates the others.

Never imports ``planning``, ``workflow`` or ``cli``.
"""
