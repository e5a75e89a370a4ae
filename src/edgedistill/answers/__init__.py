"""Answers in text: where a reply states its answer, and one spelling for answers that mean the same.

Start at ``extract.extract`` (a reply to the answer it states) and ``canonical.canonical`` (1/2, 0.5 and .50 become
one answer).

Never imports ``checkpoint``, ``runtime`` or ``verify``: it knows no tokens, models or votes.
"""
