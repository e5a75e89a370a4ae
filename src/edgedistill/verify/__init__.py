"""Verification: suites of prompts, statistics on sampled answers, and a gate that says how sure it is.

``stats``, ``metrics`` and ``gate`` are NumPy on plain data; ``models`` and ``sampling`` draw, ``run`` joins them. The
metrics' definitions, word for word as reports print them, are in ``report.definitions``.

Must not know: the terminal UI, the command line.
"""
