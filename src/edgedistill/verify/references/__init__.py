"""References that a bundle is compared with: a model that is opened by name, or a baseline file.

Start at ``open.open_reference`` and ``baseline_file.Baseline``. ``baseline.BaselineModel`` lets a stored baseline take
the place of a model.

Never imports ``verify.run`` or ``verify.stages``.
"""
