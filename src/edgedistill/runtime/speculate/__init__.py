"""Speculative decoding: several tokens are guessed and computed in one run. Start at ``speculation.py``.

A guess never decides what is written. The sampler draws every token from the model's logits at that place, with the
noise of that place, and a guess is accepted where it equals what was drawn; the first one that does not ends the run's
harvest. This is speculative sampling (Leviathan et al., arXiv 2211.17192; Chen et al., arXiv 2302.01318) with a
certain draft: a guess d is accepted with the probability p(d), and otherwise the token has the distribution p without
d. ``lookup.py`` guesses from the text so far, ``draft_model.py`` with a second bundle, ``control.py`` decides how many
guesses pay.

Never imports the model, settings of the command line, or the session.
"""
