"""The terminal UI: chat, sessions, bundles, profiler, comparisons. Built on Textual.

Start at ``app.TuiApp``. A new screen is a file in ``screens``, its class in ``screens.page_class`` and a line in
``widgets.nav.PAGES``; a new widget is a file in ``widgets``. ``engine.Engine`` is all that screens need of a model;
``runtime_engine.RuntimeEngine`` is a bundle behind it. What stays on disk is in ``data``.

Never imports ``cli``. It holds no algorithm and calls the rooms of ``edgedistill``.
"""
