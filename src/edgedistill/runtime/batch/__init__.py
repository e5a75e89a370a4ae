"""Many sequences decoded together: a finished one is replaced at once (continuous batching).

Start at ``scheduler.Engine``; ``slots.Rows`` are the places of the batch, ``runtime.sampling.choose`` draws a token for
every row, ``replicas.run_lanes`` runs several engines side by side.

Never imports ``export``, ``verify``, ``graph``.
"""
