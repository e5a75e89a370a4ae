"""Answers in texts: where a reply states its answer, and one spelling for answers that mean the same.

Must not know: tokens, models, suites, votes.
"""
