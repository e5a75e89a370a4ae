"""Makes the example scripts importable the way `python examples/tiny_reasoner/train.py` sees them."""

from __future__ import annotations

import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny_reasoner"
if str(EXAMPLE) not in sys.path:
    sys.path.insert(0, str(EXAMPLE))
