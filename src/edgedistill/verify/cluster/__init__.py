"""Draws samples on the machines of a Dask cluster (an extra), which may be the devices that the bundle is for.

Start at ``client.Cluster`` and ``model.spread_over``; ``worker.draw_unit`` is what runs on a worker.

Never imports ``verify.references``, ``verify.stages`` or ``verify.run``: it only draws samples.
"""
