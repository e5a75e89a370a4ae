"""Metrics: one file each, with plain data as input and numbers with intervals as output.

Start at ``suite_summary.summarise_suite``, which calls the metrics of one model, and ``paired.compare``, which pairs
two models. ``accuracy.flips``, ``consistency.answer_entropy``, ``collapse.collapse_audit`` and
``token_divergence.summarise`` are typical. A new metric is a new file and a sentence in ``verify.report.definitions``.

Never imports ``verify.gate``, ``verify.models`` or ``verify.report``: NumPy on plain data.
"""
