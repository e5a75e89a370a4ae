"""The report: plain data, and its forms as JSON, HTML, JUnit, GitHub summary and text.

Start at ``model.VerifyReport`` and ``build.analyse``; ``html.html``, ``ci.job_summary`` and ``ci.junit`` write
it, ``tables.metric_rows`` are the rows that every form shows. What each number means is in ``definitions``.

Never imports ``verify.run``, ``verify.stages`` or ``verify.references``.
"""
