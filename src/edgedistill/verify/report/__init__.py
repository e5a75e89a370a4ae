"""The report of a verification as plain data, and its output as JSON, HTML, JUnit, GitHub summary and text.

Start at ``model.VerifyReport`` and ``build.analyse``. ``html.html``, ``ci.job_summary`` and ``ci.junit`` write it;
``tables.metric_rows`` makes the rows that all outputs share. ``definitions`` explains each number.

Never imports ``verify.run``, ``verify.stages`` or ``verify.references``.
"""
