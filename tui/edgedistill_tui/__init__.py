"""The terminal UI: chat, sessions, bundles, profiler, comparisons. Built on Textual.

Start at ``app.TuiApp``. A new screen is a file in ``screens``, its class in ``screens.page_class`` and a line in
``widgets.nav.PAGES``; a new widget is a file in ``widgets``. ``engine.Engine`` is the interface that screens need of a
model; ``runtime_engine.RuntimeEngine`` implements it for a bundle. ``data`` keeps sessions and settings on disk.

Never imports ``cli``. Algorithms are in the packages of ``edgedistill``, which it calls.
"""
