"""What an export measures on held-out text: how far the bundle is from the checkpoint that it was made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from checkpoint_fixtures import tokenizer
from parity_support import save_random_model

import edgedistill
from edgedistill.bundle.bundle import Bundle
from edgedistill.bundle.verification_record import distance_sentence
from edgedistill.checkpoint.open import open_checkpoint
from edgedistill.errors import ExportError
from edgedistill.export.calibrate import sliced_run
from edgedistill.export.distance import TOKENS, held_out
from edgedistill.runtime.session import DecoderSession
from edgedistill.traces.prompts import built_in_texts
from edgedistill.verify.metrics.token_divergence import divergence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def logits(bundle: Bundle, sequences: list[np.ndarray]) -> np.ndarray:
    """Of all positions of ``sequences``, by the runtime, in one go."""
    session = DecoderSession(bundle)
    return np.concatenate([session.decoder().feed_all(ids.tolist(), exact=True) for ids in sequences])


def test_the_distance_is_that_of_two_bundles(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    """The original layer by layer and the bundle in slices give what both give as a whole."""
    near = edgedistill.export(tiny_checkpoint_dir, tmp_path / "near", format="fp32", verify=False)
    far = edgedistill.export(tiny_checkpoint_dir, tmp_path / "far", format="int2-b32-rtn", verify=False)
    assert near.manifest.distance["kl"] < 1e-6
    assert near.manifest.distance["top1"] == 1
    with open_checkpoint(str(tiny_checkpoint_dir)) as checkpoint:
        sequences = held_out(checkpoint, 4096)
    expected = divergence(*(logits(Bundle.open(one.path), sequences) for one in (near, far)))
    found = far.manifest.distance
    assert found["tokens"] == len(expected.kl) <= TOKENS
    assert found["kl"] == pytest.approx(expected.kl.mean(), rel=1e-2)
    assert found["kl"] > 1e-4
    assert found["top1"] == pytest.approx(expected.top_agrees.mean(), abs=0.02)
    assert distance_sentence(found) in (far.path / "README.md").read_text(encoding="utf-8")
    assert Bundle.open(far.path).manifest.distance == found == far.to_dict()["distance"]


def test_it_can_be_left_out(tiny_checkpoint_dir: Path, tmp_path: Path) -> None:
    result = edgedistill.export(tiny_checkpoint_dir, tmp_path / "b", format="int4", distance=False, verify=False)
    assert result.manifest.distance == {}
    assert "KL to the original" not in (result.path / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("model_type", ["olmo2", "gemma2"])
def test_slices_give_the_logits_of_the_whole(model_type: str, tmp_path: Path) -> None:
    """Cut behind every layer, also where the residual reaches a layer without a norm before it."""
    save_random_model(tmp_path / "source", model_type, vocab_size=320)
    (tmp_path / "source/tokenizer.json").write_text(tokenizer().to_str(), encoding="utf-8")
    result = edgedistill.export(tmp_path / "source", tmp_path / "b", format="fp32", check=False, verify=False)
    bundle = Bundle.open(result.path)
    sequences = [np.arange(5, 85), np.arange(7, 16)]
    sliced = np.concatenate(list(sliced_run.logits(bundle.path, bundle.manifest, sequences, limit=1)))
    np.testing.assert_allclose(sliced, logits(bundle, sequences), rtol=1e-4, atol=1e-5)


def test_held_out_texts_are_no_calibration_texts() -> None:
    def render(messages: list[dict[str, str]]) -> str:
        return "\n".join(message["content"] for message in messages)

    calibration = " ".join(built_in_texts(render))
    for text in built_in_texts(render, held_out=True):
        words = text.split()
        assert all(" ".join(words[i : i + 6]) not in calibration for i in range(len(words) - 5))


def test_logits_that_are_no_numbers_are_no_distance_of_zero(
    tiny_checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = sliced_run.logits

    def broken(*args: Any, **named: Any) -> Iterator[np.ndarray]:
        for values in found(*args, **named):
            values[-1, 7] = np.nan
            yield values

    monkeypatch.setattr(sliced_run, "logits", broken)
    with pytest.raises(ExportError, match="no numbers"):
        edgedistill.export(tiny_checkpoint_dir, tmp_path / "b", format="fp32", verify=False)
    assert not (tmp_path / "b").exists()
