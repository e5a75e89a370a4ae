"""Formats of one model side by side: how far each is from full precision, and what it weighs and does.

Must not know: terminals.
"""
