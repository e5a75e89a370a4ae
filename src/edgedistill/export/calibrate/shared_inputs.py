"""What a layer reads besides the layer before it, on its way through parts of a model: its part of a second embedding,
and keys and values that an earlier layer made (see ``architecture.layer_sizes``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgedistill.export.calibrate.hidden_states import Stream, batches
from edgedistill.graph.parts import KEYS_AND_VALUES, PER_LAYER
from edgedistill.graph.per_layer import INPUTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from edgedistill.architecture.spec import ModelSpec
    from edgedistill.export.calibrate.hidden_states import Batch, Part

    Floats = npt.NDArray[np.float32]
    Ids = npt.NDArray[np.int64]


def second_embedding(directory: Path, spec: ModelSpec, session: Part, sequences: Sequence[Ids]) -> Stream:
    """What all layers read of the second embedding, float32 [tokens, layers * size] in a file of ``directory``.

    Args:
        directory: Takes the file.
        spec: The model, which has a second embedding.
        session: Of ``graph.parts.build_second_embedding``.
        sequences: Token ids, the longest first.
    """
    stream = Stream(directory / ".per_layer", sum(map(len, sequences)), spec.num_hidden_layers * spec.per_layer_size)
    for part in batches(sequences):
        stream.put(part, session.run([INPUTS], {"input_ids": part.ids})[0].reshape(*part.ids.shape, -1))
    return stream


class SharedInputs:
    """Keys and values of one stream of hidden states, in files; nothing where no layer reads another's."""

    def __init__(self, directory: Path, spec: ModelSpec, tokens: int, name: str) -> None:
        self._spec = spec
        self._made = {
            layer: [Stream(directory / f".{name}.{layer}.{kind}", tokens, spec.of_layer(layer).kv_size)
                    for kind in ("key", "value")]
            for layer in {layer.keys_of for layer in spec.layers if layer.keys_of is not None}
        }  # fmt: skip
        self.per_layer: Stream | None = None

    def outputs(self, index: int) -> list[str]:
        """Names of the keys and values of a layer in its graph, if a later one reads them."""
        return [f"layers.{index}.attn.{kind}" for kind in ("k", "v")] if index in self._made else []

    def feeds(self, index: int, part: Batch) -> dict[str, npt.NDArray[Any]]:
        """Inputs of the layer ``index`` beyond those of every layer."""
        found: dict[str, npt.NDArray[Any]] = {}
        if self.per_layer is not None:
            size = self._spec.per_layer_size
            found[PER_LAYER] = self.per_layer.get(part, slice(index * size, (index + 1) * size))
        maker = self._spec.layers[index].keys_of
        if maker is not None:
            found |= {name: stream.get(part) for name, stream in zip(KEYS_AND_VALUES, self._made[maker], strict=True)}
        return found

    def keep(self, index: int, part: Batch, values: Sequence[Floats]) -> None:
        """Keep what the ``outputs`` of a layer were."""
        for stream, found in zip(self._made.get(index, ()), values, strict=True):
            stream.put(part, found)

    def remove(self) -> None:
        """Delete the files, but that of the second embedding."""
        for streams in self._made.values():
            for stream in streams:
                stream.remove()
