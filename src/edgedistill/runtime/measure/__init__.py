"""Measuring a bundle on this machine: speed, memory, latency over time, numerical properties.

Start at ``bench.bench``, ``latency_trace.trace`` and ``selftest.selftest``; each measures in a process of its own.

Never imports ``export``, ``verify``, ``graph``.
"""
