"""What decoding knows of a mask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class TokenMask(Protocol):
    """Which tokens may come next in one sequence."""

    @property
    def finished(self) -> bool:
        """Whether the reply is complete and nothing may follow."""
        ...

    def apply(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """``logits`` float32 [V], minus infinity where a token may not come; a copy unless everything may."""
        ...

    def observe(self, token: int) -> None:
        """``token`` was drawn."""
        ...
