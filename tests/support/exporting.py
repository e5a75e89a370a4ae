"""The public ``export`` for tests that want a bundle, and neither a verification of it nor the quick calibration."""

from functools import partial

import edgedistill

export = partial(edgedistill.export, verify=False, calibrate=False)
