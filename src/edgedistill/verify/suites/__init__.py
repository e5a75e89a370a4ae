"""Suites of prompts: the built-in ones, and files in the toolkit's own format or that of GSM8K or MATH.

Start at ``registry.load_suite``. A built-in suite is one file, such as ``arithmetic.arithmetic_suite``;
``files.read_suite`` reads a user's, ``checks.follows`` decides conditions on a reply.

Never imports ``verify.metrics``, ``verify.models`` or ``verify.report``.
"""
