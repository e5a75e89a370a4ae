"""The public ``export`` for tests that want a bundle alone: no verification, no quick calibration, no comparison."""

from functools import partial

import edgedistill

export = partial(edgedistill.export, verify=False, calibrate=False, distance=False)
