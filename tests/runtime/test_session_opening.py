"""Opening a session: threads, settings of the profile, graphs that cannot be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from bundle_files import copy_bundle
from runtime_support import open_tiny

from edgedistill.bundle.bundle import Bundle
from edgedistill.errors import BundleError, GenerationError
from edgedistill.runtime import session as session_module
from edgedistill.runtime.session import DecoderSession, SessionConfig, physical_cores

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_threads_never_exceed_the_cores(tiny_bundle: Callable[[str], Path]) -> None:
    path = tiny_bundle("fp32")
    assert open_tiny(path, threads=0).threads == physical_cores()
    assert open_tiny(path, threads=4096).threads == physical_cores()
    assert open_tiny(path, threads=1).threads == 1
    with pytest.raises(GenerationError, match="threads is -1"):
        open_tiny(path, threads=-1)


def test_config_from_profile() -> None:
    snapshot = {"session": {"intra_op_num_threads": 2, "allow_spinning": False}, "context": {"kv_step": 128}}
    assert SessionConfig.from_profile(snapshot) == SessionConfig(threads=2, allow_spinning=False, kv_step=128)
    assert SessionConfig.from_profile(snapshot, threads=1).threads == 1
    assert SessionConfig.from_profile({}) == SessionConfig()


def test_unreadable_graphs_are_bundle_errors(tiny_bundle: Callable[[str], Path], tmp_path: Path) -> None:
    bundle = tiny_bundle("fp32")
    for name, content, words in (
        ("torn", b"not a graph", r"model\.onnx is not an ONNX graph"),
        ("empty", b"", r"cannot load model\.onnx"),
        ("genai", (bundle / "model-genai.onnx").read_bytes(), "has no input"),
    ):
        other = copy_bundle(bundle, tmp_path / name, model_onnx=content)
        with pytest.raises(BundleError, match=words):
            DecoderSession(Bundle.open(other))


def test_huge_pages_wait_for_the_first_token(
    tiny_bundle: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(session_module, "use_huge_pages_in_background", asked.append)
    decoder = open_tiny(tiny_bundle("int4-b32")).decoder()
    decoder.feed([5, 6, 7])
    assert not asked
    for _ in range(40):  # the cache grows meanwhile, and steps are bound anew
        decoder.feed([8])
    assert asked == [Bundle.open(tiny_bundle("int4-b32")).size]


def test_packing_by_several_threads_changes_no_bit(
    tiny_bundle: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "physical_cores", lambda: 2)
    path = tiny_bundle("int4-b32")
    one, two = (open_tiny(path, threads=threads).decoder().feed([5, 6, 7, 8]).copy() for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
