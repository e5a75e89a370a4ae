"""Suites of prompts: the built-in ones, and files in the toolkit's own format or in published ones.

Start at ``registry.load_suite``. A built-in suite is one file, such as ``arithmetic.arithmetic_suite``;
``files.read_suite`` reads a user's, ``published.FORMATS`` lists the published formats, ``checks.follows`` decides
conditions on a reply.

Never imports ``verify.metrics``, ``verify.models`` or ``verify.report``.
"""
