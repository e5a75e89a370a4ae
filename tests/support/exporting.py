"""The public ``export`` for tests that want a bundle and no verification of it."""

from functools import partial

import edgedistill

export = partial(edgedistill.export, verify=False)
