"""Replies in a given form: grammars compiled to masks over the vocabulary, which the sampler applies.

Start at ``constraint.constraint_of`` (what the keywords ask for) and ``masks.MaskMaker`` (a model's masks, by
llguidance, which is loaded when the first one is made). ``masks.TokenMask`` is what samplers and batches know;
``tools.forced`` writes the grammar of a call; ``gate`` lets reasoning pass before the mask begins.

Never imports ``export``, ``verify``, ``graph``.
"""
