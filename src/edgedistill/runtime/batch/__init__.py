"""Many sequences decoded together: a finished one is replaced at once (continuous batching).

Start at ``scheduler.Engine``, which decodes a known amount of work; ``slots.Rows`` are the places of its batch,
``runtime.sampling.choose`` draws a token for every row, ``replicas.run_lanes`` runs several engines side by side.
``live.LiveBatch`` runs as long as its process, for requests that come and go (the server's), over ``places``.

Never imports ``export``, ``verify``, ``graph``.
"""
