"""Statistics: intervals, bootstrap, e-processes, power, special functions. NumPy alone, no prompts, no models.

Start at ``intervals.wilson``, ``intervals.bca``, ``e_process.Bettor``, ``power.power_curve`` and
``sampler_audit.audit_sampler``.

Never imports ``verify.metrics``, ``verify.gate`` or ``verify.models``.
"""
