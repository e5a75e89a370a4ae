"""``tune``: a finished bundle's scales, zero points and norms trained towards the original model.

Start at ``pipeline.tune_bundle``, which reads top to bottom. ``arrays.StoredArrays`` reads and writes the bundle's
arrays, ``decoder.Decoder`` is the model in PyTorch, ``student.Student`` the bundle's weights, ``loop.Trainer`` trains,
``teacher.deployed_divergence`` judges it in the kernels of deployment.

Never imports ``cli``, ``edgedistill_tui`` or ``comparison``. PyTorch is an extra: only ``kernels``,
``decoder``, ``recurrent``, ``student``, ``teacher`` and ``loop`` import it, and only functions import them.
"""
