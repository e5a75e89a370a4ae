"""Answers in text: where a reply states its answer, its type, and one key for answers that mean the same.

Start at ``extract.read`` (a reply to the answer that it states), ``typed.read_span`` (1/2, 0.5 and .50 get one key) and
``fit.fit`` (an answer in the form that the right one has).

Never imports ``checkpoint``, ``runtime`` or ``verify``: it knows no tokens, models or votes.
"""
