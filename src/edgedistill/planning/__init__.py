"""What a bundle will take and do, before it is made: sizes by arithmetic, speeds from timings of its kernels.

Must not know: terminals, how a bundle is made beyond its plan.
"""
