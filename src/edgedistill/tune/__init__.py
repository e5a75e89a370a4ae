"""``tune``: a finished bundle's scales, zero points and norms trained towards the original model.

Start at ``pipeline.tune_bundle``, which reads top to bottom. ``arrays.StoredArrays`` reads and writes the bundle's
arrays, ``student.Student`` is the bundle as a PyTorch module, ``loop.Trainer`` trains,
``teacher.deployed_divergence`` judges it in the kernels of deployment.

Never imports ``cli``, ``edgedistill_tui`` or ``comparison``. PyTorch is an extra: only ``kernels``, ``student``,
``teacher`` and ``loop`` import it, and only functions import them.
"""
