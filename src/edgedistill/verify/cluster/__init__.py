"""Samples drawn on the machines of a Dask cluster (an extra), which may be the devices themselves.

Start at ``client.Cluster`` and ``model.spread_over``; ``worker.draw_unit`` is what runs on a worker.

Never imports ``verify.references``, ``verify.stages`` or ``verify.run``: it draws samples and decides nothing.
"""
