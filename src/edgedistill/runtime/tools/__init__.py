"""Tools that a model may call: their types, the calls read out of a reply, the prompt that offers them.

Start at ``types.Tool`` and ``types.ToolCall``. ``control.ToolControl`` brings tools into a prompt, ``splitter`` finds
calls in text that comes in pieces by the forms of ``catalog.tool_formats``.

Never imports ``export``, ``verify``, ``graph``.
"""
