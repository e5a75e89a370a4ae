"""A bundle behind OpenAI's HTTP API: requests in, one live batch for all of them, answers and event streams out.

Start at ``app.create_app``: the routes. ``service.Service`` holds the model and its ``runtime.batch.live.LiveBatch``,
``chat`` and ``completions`` read requests and word answers (``fields`` and ``sampling`` read what both have),
``responses`` puts a chat into the words of OpenAI's newer API, ``vote`` is the extension for several attempts.
``access.Access`` refuses strangers, ``listen.serve`` runs it all on uvicorn until it is told to end. The terminal UI in
a browser (``chat``'s option for that) is another thing.

Never imports ``cli`` or ``edgedistill_tui``.
"""
