"""The rule-based teacher of tiny-reasoner: problems, their worked solutions, and the train/held-out split."""

from .dialogue import Example, draw, example, follow_up, heldout
from .problem import BANDS, IN_RANGE_BANDS, Problem, split_of

__all__ = ["BANDS", "IN_RANGE_BANDS", "Example", "Problem", "draw", "example", "follow_up", "heldout", "split_of"]
