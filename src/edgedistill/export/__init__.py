"""From an opened checkpoint to a bundle: plan formats, stream and quantize weights, write graph and manifest, try it.

Must not know: what verification makes of a bundle, how anything is shown.
"""
