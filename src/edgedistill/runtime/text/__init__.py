"""Between messages, tokens and text: chat templates, detokenizing, reasoning split from the answer.

Start at ``chat_template.ChatTemplate`` (rendered in a sandboxed process), ``transcript.Transcript`` (tokens to text
events), ``detokenize.Detokenizer`` and ``reasoning.ReasoningSplitter``.

Never imports ``export``, ``verify``, ``graph``.
"""
