"""Verification: suites of prompts, statistics on sampled answers, and a gate that says how sure it is.

Everything here is NumPy on plain data, apart from the runner. The metrics' definitions, word for word as reports print
them, are in ``definitions``.

Must not know: the TUI, the CLI.
"""
