"""Calls of the API that `make types` has to refuse: mypy reports a `type: ignore` that nothing needs as an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

import edgedistill

if TYPE_CHECKING:
    from edgedistill import Event, ExportResult, TrajectoryResult, VerifyReport


async def calls() -> None:
    """Never called."""
    assert_type(edgedistill.export("tiny-reasoner", "out", format="int8", context=512), ExportResult)
    assert_type(edgedistill.verify("bundle", reference="hf", samples=8, margins={"accuracy": 0.1}), VerifyReport)
    assert_type(edgedistill.audit("bundle", procedure="vote", trajectories=4), VerifyReport)
    edgedistill.export("tiny-reasoner", "out", wieght_format="int8")  # type: ignore[call-arg]
    edgedistill.plan("tiny-reasoner", context="long")  # type: ignore[arg-type]
    edgedistill.compare("tiny-reasoner", round=3)  # type: ignore[call-arg]
    edgedistill.tune("bundle", "out", step=3)  # type: ignore[call-arg]
    edgedistill.open_bundle("bundle", thread=1)  # type: ignore[call-arg]
    edgedistill.verify("bundle", reference="hf", sample=8)  # type: ignore[call-arg]
    edgedistill.verify("bundle")  # type: ignore[call-arg]
    edgedistill.audit("bundle", sequential=True)  # type: ignore[call-arg]
    with edgedistill.open_bundle("bundle") as model, model.chat(temperature=0.5) as chat:
        assert_type(edgedistill.solve(model, "question", thinking=False), TrajectoryResult)
        edgedistill.solve(model, "question", thread=1)  # type: ignore[call-arg]
        chat.ask("question", max_tokens=8)  # type: ignore[call-arg]
        chat.stream("question", temperature="hot")  # type: ignore[arg-type]
        model.chat(systm="brief")  # type: ignore[call-arg]
        model.generate("question", max_tokens=8)  # type: ignore[call-arg]
        model.astream("question", raw=True, max_tokens=8)  # type: ignore[call-arg]
        async for event in model.astream("question", raw=True, continuing="<think>"):
            assert_type(event, Event)
