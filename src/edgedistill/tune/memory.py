"""Whether a tuning fits into memory, and whether its layers have to be computed twice."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgedistill.architecture.recurrent import ShortConvSpec
from edgedistill.errors import BudgetError
from edgedistill.system.cgroup import available_memory
from edgedistill.tune.options import STATE_CHUNK

if TYPE_CHECKING:
    from edgedistill.architecture.spec import LayerSpec, LogicalWeight, ModelSpec
    from edgedistill.tune.options import TuneOptions

_ACTIVATIONS = 0.5  # share of the memory left that activations may take before layers are computed twice


def check_memory(spec: ModelSpec, weights: tuple[LogicalWeight, ...], options: TuneOptions) -> bool:
    """Whether layers have to be computed twice for lack of memory; raises BudgetError where even that is too much.

    The reference takes 4 bytes a weight, codes one, scales with their gradients and Adam's moments at most one more (at
    block 16); the head's gradient and a slice of logits come on top.
    """
    parameters = sum(math.prod(weight.shape) for weight in weights)
    largest = max(math.prod(weight.shape) for weight in weights)
    fixed = 6 * parameters + 12 * largest + 4 * 128 * 6 * spec.vocab_size
    tokens = max(options.batch_tokens, options.length)
    each = [4 * tokens * _kept_elements(spec, layer) for layer in spec.layers]
    once = max(each)
    available = available_memory()
    if fixed + once > available:
        raise BudgetError(
            f"Tuning this model takes about {(fixed + once) / 1e9:.1f} GB of memory; {available / 1e9:.1f} GB are "
            "available.",
            hint="Close other programs, or use a smaller --batch-tokens.",
        )
    return sum(each) > _ACTIVATIONS * (available - fixed)


def _kept_elements(spec: ModelSpec, layer: LayerSpec) -> int:
    """Elements of a token that a layer keeps for the gradient."""
    common = 10 * spec.hidden_size + 4 * spec.widest_mlp
    if layer.recurrent is None:
        return common + 4 * spec.q_size
    if isinstance(layer.recurrent, ShortConvSpec):
        return common + 8 * layer.recurrent.channels
    # A chunk keeps some matrices of tokens by tokens of every head, and a few states.
    heads = layer.recurrent.states[1].shape[0]
    state = layer.recurrent.states[1].nbytes // 4
    return common + 10 * layer.recurrent.channels + heads * 6 * STATE_CHUNK + 3 * state // STATE_CHUNK
