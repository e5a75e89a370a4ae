"""The original model in PyTorch as the reference of a verification: in float32, with the same random numbers as a
bundle.

It is meant to be right, not fast. The samples of a prompt share its prefill and are decoded as a batch, which finished
samples leave.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from tokenizers import Tokenizer

from edgedistill.checkpoint.types import grammar_of, recommended
from edgedistill.errors import BudgetError, GenerationError, VerifyError
from edgedistill.runtime.sampling import NoiseSource, choose
from edgedistill.runtime.text.chat_template import ChatTemplate, PassThrough
from edgedistill.runtime.text.thinking import ThinkingControl
from edgedistill.units import format_bytes
from edgedistill.verify.models.torch_weights import Device, build_module, free_memory, import_torch, require_device
from edgedistill.verify.sampling.protocol import SampledModel
from edgedistill.verify.sampling.replies import Encoded, Replies
from edgedistill.verify.sampling.shipped import read_shipped
from edgedistill.verify.types import ModelIdentity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from edgedistill.checkpoint.open import Checkpoint
    from edgedistill.runtime.batch.request import DrawSettings, Finish
    from edgedistill.verify.sampling.protocol import Missing, Slice
    from edgedistill.verify.types import Drawn, Prompt, Shipped

    Logits = npt.NDArray[np.float32]

_MOST_ROWS: dict[Device, int] = {"cpu": 16, "cuda": 512, "mps": 64}
_MEMORY_SHARE = 0.7  # of the free memory that weights may take before they are streamed


class TorchModel(SampledModel):
    """A checkpoint run by transformers.

    Args:
        checkpoint: Closed with this object.
        device: Where it computes, always in float32.
        batch: Samples decoded together; None: as many as fit into the free memory.
        stream: Load weights layer by layer; such a model can score tokens but not draw samples.
    """

    can_score = True

    def __init__(
        self, checkpoint: Checkpoint, *, device: Device = "cpu", batch: int | None = None, stream: bool = False
    ) -> None:
        """Raises MissingExtraError without PyTorch, UsageError without the device, CheckpointError for weights that do
        not fit.
        """
        self._torch, _ = import_torch()
        require_device(self._torch, device)
        self._device = device
        self._checkpoint = checkpoint
        self._batch = batch
        self._stream = stream
        self._model = build_module(checkpoint, stream=stream)
        if device != "cpu":  # a model that is streamed has layers without values, which cannot be moved
            self._model.to(device)
        config = self._model.config
        self._vocab = int(self._model.get_output_embeddings().weight.shape[0])
        self._cap: float | None = getattr(config, "final_logit_softcapping", None)
        self._limit = int(config.max_position_embeddings)
        self._template = _template(checkpoint)
        self._special = checkpoint.special_tokens
        self._tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json.decode())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.noise = NoiseSource()
        grammar = grammar_of(checkpoint)
        self._thinking = ThinkingControl(
            self._template, grammar, lambda text: self._tokenizer.token_to_id(text) is not None
        )  # fmt: skip
        self.replies = Replies(
            self._tokenizer, self._render, self._encode, context_length=self._limit, grammar=grammar
        )  # fmt: skip
        self.identity = ModelIdentity(
            "hf",
            checkpoint.source.name,
            checkpoint.hash_source(),
            hashlib.sha256(checkpoint.tokenizer_json).hexdigest(),
            self._vocab,
            {"family": str(config.model_type), "revision": checkpoint.source.revision or ""},
        )

    @classmethod
    def open(cls, name: str, *, stream: bool | None = None, device: Device = "cpu") -> Self:
        """Open a checkpoint by built-in name, path or hub name; nothing is downloaded.

        Args:
            name: As for ``open_checkpoint``.
            stream: None: only if its float32 weights would take most of the free memory.
            device: Where it computes; other devices than ``cpu`` have to hold the whole model.

        Raises:
            MissingExtraError, CheckpointError, ModelNotFoundError: See there.
            UsageError: No such device here.
            BudgetError: A model that the device cannot hold.
        """
        torch, _ = import_torch()
        require_device(torch, device)
        from edgedistill.checkpoint.open import open_checkpoint

        checkpoint = open_checkpoint(name, offline=True)
        try:
            size = 4 * sum(checkpoint.tensors.info(tensor).size for tensor in checkpoint.tensors.names())
            free = free_memory(torch, device)
            if device != "cpu" and size > _MEMORY_SHARE * free:
                raise BudgetError(
                    f"{name} takes {format_bytes(size)} in float32, and {device} has {format_bytes(free)} free.",
                    hint="Use --device cpu, where a model larger than memory is read layer by layer.",
                )
            if stream is None:
                stream = size > _MEMORY_SHARE * free
            return cls(checkpoint, stream=stream, device=device)
        except BaseException:
            checkpoint.close()
            raise

    @property
    def can_draw(self) -> bool:
        """Whether all weights are in memory."""
        return not self._stream

    @property
    def generation_defaults(self) -> dict[str, Any]:
        """What the checkpoint's generation_config.json recommends."""
        return recommended(self._checkpoint.generation_config)

    @property
    def shipped(self) -> Shipped:
        """Template, end tokens and what is recommended."""
        ends = self._special.eos_token_ids
        return read_shipped(self._tokenizer, self._checkpoint.chat_template, ends, self.generation_defaults)

    @property
    def score_rows(self) -> int:
        """Number of sequences scored at a time; more if every pass reads all weights from disk."""
        return 32 if self._stream else 8

    def draw_missing(self, missing: Sequence[Missing], settings: DrawSettings) -> Iterator[Drawn]:
        """See ``SampledModel``. The settings' ``numerics`` have no effect: PyTorch has one path."""
        if self._stream:
            raise VerifyError(
                f"{self.identity.name} does not fit the memory; layer by layer it can score tokens, not draw samples.",
                hint="Give a baseline made on a larger machine, or an int8 bundle, as the reference.",
            )
        for one, left in [(self.replies.encode(prompt, settings.thinking), indices) for prompt, indices in missing]:
            rows = self._batch or self._rows(len(one.ids) + settings.max_new_tokens)
            while left and not self.cancelled:
                try:
                    for index, tokens, finish in self._batch_of(one, left[:rows], settings):
                        yield self.replies.drawn(one, index, tokens, finish)
                except self._torch.OutOfMemoryError as error:
                    if rows == 1:
                        raise GenerationError(
                            f"{self.identity.name} ran out of memory on {self._device} with a single reply.",
                            hint="Use --device cpu, or a smaller --max-new-tokens.",
                        ) from error
                    rows = rows // 2
                    continue
                left = left[rows:]  # noqa: PLW2901

    def _batch_of(
        self, one: Encoded, indices: Sequence[int], settings: DrawSettings
    ) -> Iterator[tuple[int, list[int], Finish]]:
        """Replies of one batch; on a GPU all at once at the end, since memory may run out before that."""
        decoded = self._decode(one, indices, settings)
        return decoded if self._device == "cpu" else iter(list(decoded))

    def _rows(self, tokens: int) -> int:
        """Number of samples whose keys, values and logits fit into half of the free memory."""
        config = self._model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        row: int = 8 * config.num_hidden_layers * heads * width * min(tokens, self._limit) + 16 * self._vocab
        # Decoding copies the cache where a sample leaves the batch.
        return max(1, min(_MOST_ROWS[self._device], free_memory(self._torch, self._device) // 2 // (2 * row)))

    def _decode(
        self, one: Encoded, indices: Sequence[int], settings: DrawSettings
    ) -> Iterator[tuple[int, list[int], Finish]]:
        torch, generation = self._torch, settings.generation
        keys = self.noise.keys(settings.seed, one.prompt.id, indices)
        rows = np.arange(len(indices))
        replies: list[list[int]] = [[] for _ in indices]
        seen = np.zeros((len(indices), self._vocab), dtype=np.bool_)
        seen[:, list(one.ids)] = True
        # Caches with recurrent states cannot be reordered: every row computes the prompt, and no row leaves.
        kinds = {*(getattr(self._model.config, "layer_types", None) or ())}
        fixed = bool(kinds - {"full_attention", "sliding_attention", "attention"})
        held = np.zeros(len(indices), dtype=np.int64)
        with torch.inference_mode():
            ids = torch.tensor([one.ids] * (len(indices) if fixed else 1), device=self._device)
            out = self._model(input_ids=ids, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            if not fixed:
                cache.reorder_cache(torch.zeros(len(indices), dtype=torch.long, device=self._device))
            logits = np.repeat(out.logits[:1, -1].float().cpu().numpy(), len(indices), axis=0)
        for position in range(settings.max_new_tokens):
            if self.cancelled:
                return
            penalised = seen[rows] if generation.repetition_penalty != 1.0 else None
            at = np.full(len(rows), position, dtype=np.int64)
            tokens = choose(logits, generation, keys[rows], at, penalised)
            seen[rows, tokens] = True
            going: list[int] = []
            for slot, (row, token) in enumerate(zip(rows.tolist(), tokens.tolist(), strict=True)):
                replies[row].append(token)
                finish = self._reason(token, position + 1, len(one.ids), settings)
                if finish is None:
                    going.append(slot)
                else:
                    yield indices[row], replies[row], finish
            if not going:
                return
            with torch.inference_mode():
                if len(going) < len(rows) and not fixed:
                    cache.reorder_cache(torch.tensor(going, device=self._device))
                rows, tokens = rows[going], tokens[going]
                held[rows] = tokens
                ids = torch.from_numpy((held if fixed else tokens)[:, None]).to(self._device)
                out = self._model(input_ids=ids, past_key_values=cache, use_cache=True)
                logits = (out.logits[rows, -1] if fixed else out.logits[:, -1]).float().cpu().numpy()

    def _reason(self, token: int, count: int, prompt_tokens: int, settings: DrawSettings) -> Finish | None:
        if token in self._special.eos_token_ids:
            return "stop"
        if count >= settings.max_new_tokens:
            return "length"
        return "context" if prompt_tokens + count >= self._limit else None

    def score(
        self, prompt: Prompt, sequences: Sequence[Sequence[int]], slices: Sequence[Slice], *, thinking: bool | None
    ) -> Iterator[Logits]:
        """See ``SampledModel.score``. One pass over all layers, then the head slice by slice."""
        torch = self._torch
        ids = self.replies.encode(prompt, thinking).ids
        lengths = np.array([len(sequence) for sequence in sequences])
        # Padding on the right changes nothing: attention is causal.
        padded = np.zeros((len(sequences), len(ids) + max(int(lengths.max()) - 1, 0)), dtype=np.int64)
        for row, sequence in enumerate(sequences):
            known = [*ids, *sequence[:-1]]
            padded[row, : len(known)] = known
        with torch.inference_mode():
            inputs = torch.from_numpy(padded).to(self._device)
            # Layers that read another's keys find them in the cache alone (Gemma 3n in transformers 4).
            shared = bool(getattr(self._model.config, "num_kv_shared_layers", 0))
            hidden = self._model.get_decoder()(input_ids=inputs, use_cache=shared).last_hidden_state
            hidden = hidden[:, len(ids) - 1 :]
        for part in slices:
            positions = np.arange(part.start, part.stop)
            rows, columns = np.nonzero(positions[None, :] < lengths[:, None])
            with torch.inference_mode():
                logits = self._model.get_output_embeddings()(hidden[rows, columns + part.start])
                if self._cap:
                    logits = torch.tanh(logits / self._cap) * self._cap
            yield logits.float().cpu().numpy()

    def close(self) -> None:
        """Close the checkpoint and end the template's helper process."""
        self._template.close()
        self._checkpoint.close()

    def _render(self, messages: list[dict[str, str]], thinking: bool | None) -> str:
        return self._thinking.render(messages, thinking=thinking)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        bos = self._special.bos_token_id
        if isinstance(self._template, PassThrough) and self._special.add_bos and bos is not None and ids[:1] != [bos]:
            return [bos, *ids]
        return ids


def _template(checkpoint: Checkpoint) -> ChatTemplate | PassThrough:
    if checkpoint.chat_template is None:
        return PassThrough()
    special = checkpoint.special_tokens
    named = {"bos_token": special.bos_token, "eos_token": special.eos_token, "pad_token": special.pad_token}
    return ChatTemplate(checkpoint.chat_template, special_tokens={k: v for k, v in named.items() if v is not None})
