"""This machine: its hardware and memory limits, temporary files, what Linux does with mapped weights.

Start at ``hardware.detect`` and ``hardware.fit``; ``cgroup.available_memory``, ``temporary.scratch`` and
``file_leases.MappedFiles`` are what others use of it.

Never imports ``runtime``, ``graph`` or ``export``: it knows no models.
"""
