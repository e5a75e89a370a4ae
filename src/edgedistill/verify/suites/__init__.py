"""Suites of prompts: built-in ones, and files in the toolkit's own format or in published formats.

Start at ``registry.load_suite``. Each built-in suite has its own file, such as ``arithmetic.arithmetic_suite``;
``files.read_suite`` reads a user's file, ``published.FORMATS`` lists the published formats, ``checks.follows`` checks
conditions on a reply.

Never imports ``verify.metrics``, ``verify.models`` or ``verify.report``.
"""
