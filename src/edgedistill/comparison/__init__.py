"""``compare``: formats of one model built and measured side by side, as a table, a page and a plot.

Start at ``run.compare``; ``quality.compare`` measures divergence from the full-precision model, ``result.Comparison``
holds the rows, ``page.html`` shows them.

Never imports ``cli``, ``edgedistill_tui`` or ``tune``.
"""
