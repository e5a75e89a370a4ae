"""The gate: decides pass, fail or inconclusive from numbers of two models that are paired by prompt.

Start at ``decide.decide`` (all prompts at once) and ``sequential.SequentialGate`` (after every prompt). A new endpoint
is added in ``endpoints.endpoints``.

Never imports ``verify.report`` or ``verify.references``: NumPy on plain data.
"""
