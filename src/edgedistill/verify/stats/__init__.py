"""Statistics: intervals, bootstrap, bets, special functions. NumPy alone, no prompts, no models.

Start at ``betting.Bets`` (tests and intervals of the gate), ``intervals.wilson``, ``intervals.bca`` and
``sampler_audit.audit_sampler``.

Never imports ``verify.metrics``, ``verify.gate`` or ``verify.models``.
"""
