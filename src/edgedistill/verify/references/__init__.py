"""References: what a bundle is compared with, opened by name, or stored as a baseline file.

Start at ``open.open_reference`` and ``baseline_file.Baseline``; ``baseline.BaselineModel`` puts a stored baseline in
the place of a model.

Never imports ``verify.run`` or ``verify.stages``.
"""
