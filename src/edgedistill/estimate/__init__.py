"""Size, memory and speed of a bundle, by arithmetic from a plan and from timings of kernels.

Start at ``memory.predict``, ``speed.StepModel`` and ``limits.check`` (is it within the profile's budget, and what
would be); ``timings.Timings`` keeps what was timed on this machine.

Never imports ``export``, ``verify`` or ``trajectories``.
"""
