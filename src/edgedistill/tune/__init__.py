"""Distribution-aligned tuning: a finished bundle's scales, zero points and norms trained towards the original.

``pipeline.py`` is the verb from top to bottom; ``arrays.py`` reads and writes the bundle's arrays; ``student.py`` is
the bundle as a PyTorch module, ``kernels.py`` its arithmetic; ``loop.py`` trains, ``teacher.py`` says towards what, and
``measure.py`` judges the bundle in the kernels it is deployed with.

PyTorch is an extra: ``kernels.py``, ``student.py``, ``teacher.py`` and ``loop.py`` import it, and only functions import
them.

Must not know: how the bundle was quantized.
"""
