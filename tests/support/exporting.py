"""The public ``export`` for tests that want a bundle alone: no trial, verification, quick calibration, comparison."""

from functools import partial

import edgedistill

export = partial(edgedistill.export, check=False, verify=False, calibrate=False, distance=False)
