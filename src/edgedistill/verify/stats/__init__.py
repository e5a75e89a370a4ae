"""Statistics on plain arrays: intervals, bootstrap, tests by betting, special functions. NumPy only, without models.

Start at ``betting.Bets`` (tests and intervals of the gate), ``intervals.wilson``, ``intervals.bca`` and
``sampler_audit.audit_sampler``.

Never imports ``verify.metrics``, ``verify.gate`` or ``verify.models``.
"""
