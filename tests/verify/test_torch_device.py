"""The original in PyTorch: devices that are not here are named, batches follow the memory, and memory may run out."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import pytest
from cli_support import here

from edgedistill.errors import BudgetError, GenerationError, UsageError
from edgedistill.runtime.batch.request import DrawSettings
from edgedistill.verify.models.torch import TorchModel
from edgedistill.verify.models.torch_weights import free_memory, require_device
from edgedistill.verify.suites.registry import load_suite

torch = pytest.importorskip("torch")
module: Any = importlib.import_module("edgedistill.verify.models.torch")
SETTINGS = DrawSettings(temperature=0.8, max_new_tokens=12)
PROMPTS = load_suite("arithmetic").prompts[:1]


@pytest.fixture(scope="module")
def original() -> Iterator[TorchModel]:
    with TorchModel.open("tiny-reasoner", stream=False) as model:
        yield model


def test_a_device_that_is_not_here_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="finds no device cuda here"):
        require_device(torch, "cuda")
    refused = here("baseline", "create", "hf:tiny-reasoner", "-o", "never.baseline", "--device", "cuda", "--no-store")
    assert "finds no device cuda here" in refused.one_error()
    with pytest.raises(UsageError, match="no device 'tpu'"):
        require_device(torch, "tpu")  # type: ignore[arg-type]
    require_device(torch, "cpu")
    assert free_memory(torch, "cpu") > 1 << 20


def test_a_device_that_is_too_small_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "require_device", lambda *_: None)
    monkeypatch.setattr(module, "free_memory", lambda *_: 1 << 10)
    with pytest.raises(BudgetError, match=r"tiny-reasoner takes .* in float32, and cuda has 1\.00 KiB free"):
        TorchModel.open("tiny-reasoner", device="cuda")


def test_batches_follow_the_memory(original: TorchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for free in (1 << 12, 1 << 23, 1 << 40):
        monkeypatch.setattr(module, "free_memory", lambda *_, free=free: free)
        found.append(original._rows(200))
    assert found[0] == 1
    assert 1 < found[1] < 16
    assert found[2] == 16, "more are no faster on a CPU"


def test_a_batch_that_does_not_fit_is_halved(original: TorchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {one.key: one.token_ids for one in original.draw(PROMPTS, 6, SETTINGS)}
    decode = TorchModel._decode
    tried: list[int] = []

    def limited(self: TorchModel, one: Any, indices: Any, settings: Any) -> Any:
        tried.append(len(indices))
        if len(indices) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return decode(self, one, indices, settings)

    monkeypatch.setattr(TorchModel, "_decode", limited)
    found = {one.key: one.token_ids for one in original.draw(PROMPTS, 6, SETTINGS)}
    assert tried[0] == 6
    assert max(tried[-2:]) <= 2
    assert set(found) == set(whole)
    monkeypatch.setattr(TorchModel, "_decode", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("no")))
    with pytest.raises(GenerationError, match="ran out of memory on cpu with a single reply"):
        list(original.draw(PROMPTS, 2, SETTINGS))
