"""BitNet checkpoints in every form: packed and multiplied, packed and divided, floats that are rounded when read."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoint_fixtures import write_safetensors
from family_cases import CASES
from parity_support import Decoder, export, random_tokens, reference_logits, save_random_model

from edgedistill.architecture.spec import LogicalWeight
from edgedistill.checkpoint.quantized import open_quantized
from edgedistill.checkpoint.safetensors import open_safetensors
from edgedistill.errors import CheckpointError, UnsupportedModelError
from edgedistill.export.keep import kept_format

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")
TOKENS = random_tokens(30)
FORMS = {
    "multiplied": {"linear_class": "autobitlinear", "quantization_mode": "offline"},
    "divided": {"linear_class": "bitlinear"},
    "online": {"linear_class": "autobitlinear", "quantization_mode": "online"},
}


def as_bitnet(model: Any) -> dict[str, tuple[Any, float]]:
    """Round the model's matrices and what they read, as the paper does (arXiv 2402.17764); what they are."""
    found = {}
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear) or name == "lm_head":
            continue
        scale = module.weight.abs().mean().item()
        ternary = (module.weight / scale).round().clamp(-1, 1)
        found[name] = (ternary.detach().numpy(), scale)
        module.weight.data = ternary * scale

        def read(_module: Any, inputs: Any) -> Any:
            scale = 127 / inputs[0].abs().amax(dim=-1, keepdim=True).clamp(min=1e-5)
            return ((inputs[0] * scale).round() / scale,)

        module.register_forward_pre_hook(read)
    return found


def write(directory: Path, form: str, **changed: Any) -> Any:
    """A random BitNet in ``directory``; returns it with rounded matrices."""
    model_type, values = CASES["bitnet"]
    model = save_random_model(directory, model_type, **values)
    tensors = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    for name, (ternary, scale) in as_bitnet(model).items():
        if form == "online":
            continue
        quarters = np.split(ternary.astype(np.int8) + 1, 4)
        tensors[f"{name}.weight"] = sum(q.astype(np.uint8) << (2 * i) for i, q in enumerate(quarters)).astype(np.uint8)
        stored = 1 / scale if form == "divided" else scale
        tensors[f"{name}.weight_scale"] = np.array([stored], np.float32)
    write_safetensors(directory / "model.safetensors", tensors | changed.pop("tensors", {}))
    config = json.loads((directory / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitnet", **FORMS[form], **changed}
    (directory / "config.json").write_text(json.dumps(config))
    return model


def opened(directory: Path) -> Any:
    """The tensors of a checkpoint."""
    config = json.loads((directory / "config.json").read_text())
    return open_quantized(config, open_safetensors(directory))[1]


@pytest.mark.parametrize("form", FORMS)
def test_logits_of_a_bitnet(form: str, tmp_path: Path) -> None:
    model = write(tmp_path / "hf", form)
    exported = export(tmp_path / "hf", tmp_path / "out")
    difference = np.abs(Decoder(exported, 1).step([TOKENS])[0] - reference_logits(model, TOKENS))
    # A value near the middle between two codes may go to either.
    assert np.median(difference) < 1e-4
    assert difference.max() < 0.05


def test_matrices_keep_two_bits(tmp_path: Path) -> None:
    write(tmp_path / "hf", "multiplied")
    with closing(opened(tmp_path / "hf")) as tensors:
        name = "model.layers.0.mlp.up_proj.weight"
        rows = tensors.read_rows(name, 0, 8)
        assert len(np.unique(rows)) == 3
        fmt = kept_format(LogicalWeight("w", "linear", tensors.info(name).shape, (name,)), tensors)
    assert fmt is not None
    assert (fmt.bits, fmt.block_size, fmt.symmetric) == (2, 64, True)


def test_forms_that_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "norms", "multiplied", use_rms_norm=True)
    with pytest.raises(UnsupportedModelError, match="use_rms_norm"):
        opened(tmp_path / "norms")
    floats = {"model.layers.0.mlp.up_proj.weight": np.ones((80, 64), np.float32)}
    write(tmp_path / "floats", "multiplied", tensors=floats)
    with pytest.raises(UnsupportedModelError, match="has 1 of 21 matrices in floats, such as model"):
        opened(tmp_path / "floats")
    damaged = {"model.layers.0.mlp.up_proj.weight": np.full((20, 64), 3, np.uint8)}
    write(tmp_path / "damaged", "multiplied", tensors=damaged)
    with closing(opened(tmp_path / "damaged")) as tensors, pytest.raises(CheckpointError, match="codes above 2"):
        tensors.read_rows("model.layers.0.mlp.up_proj.weight", 0, 1)
