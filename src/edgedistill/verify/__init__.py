"""Verification: suites of prompts, statistics on sampled answers, and a gate that says how sure it is.

Start at ``run.verify`` and ``run.audit``. A new metric is a file in ``metrics`` (NumPy on plain data), called from
``metrics.suite_summary.summarise_suite`` or ``report.build.analyse``, its sentence in ``report.definitions``; a new
suite goes into ``suites``. ``stats``, ``metrics`` and ``gate`` compute, ``models`` and ``sampling`` draw, ``stages``
and ``run`` join them, ``report`` shows.

Never imports ``export``, ``traces``, ``workflow`` or ``cli``.
"""
