"""The gate: pass, fail or inconclusive, from paired numbers per prompt.

Start at ``decide.decide`` (all prompts at once) and ``sequential.SequentialGate`` (after every prompt); a new
endpoint is a case of ``endpoints.endpoints``.

Never imports ``verify.report`` or ``verify.references``: NumPy on plain data.
"""
