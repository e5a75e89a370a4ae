"""``plan``: what bundles of a model would weigh and how fast they would be, before any is made.

Start at ``planner.plan``; ``measure.measure_missing`` times the kernels that no earlier plan has timed on this
machine.

Never imports ``workflow``, ``comparison`` or ``cli``.
"""
