"""``edgedistill profiles``: the hardware profiles, and which one fits this machine.

Must not know: what a profile's values mean to the exporter.
"""
