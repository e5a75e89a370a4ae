"""Verification: suites of prompts, statistics on sampled answers, and a gate that passes, fails or stays undecided.

Start at ``run.verify`` (a bundle against its reference) and ``run.audit`` (one model). ``suites`` has the prompts;
``models`` and ``sampling`` draw replies; ``stats``, ``metrics`` and ``gate`` compute on plain data; ``stages`` and
``run`` call these in order; ``report`` renders the result. A new metric is a file in ``metrics``, called from
``metrics.suite_summary.summarise_suite`` or ``report.build.analyse``, with a sentence in ``report.definitions``. A new
suite goes into ``suites``.

Never imports ``export``, ``traces``, ``workflow`` or ``cli``.
"""
