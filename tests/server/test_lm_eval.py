"""lm-evaluation-harness over HTTP: a task of likelihoods and one of generations, with the numbers of the API's own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_server import Served

from edgedistill.runtime.model import Model

lm_eval = pytest.importorskip("lm_eval", reason="lm_eval[api] (extra dev) is not installed")

QUESTIONS = [(17, 25), (9, 31), (40, 2), (63, 18), (5, 5)]
CHOICES = """\
task: sums_by_likelihood
output_type: multiple_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
doc_to_text: "{{{{question}}}} The answer is"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
REPLIES = """\
task: sums_by_reply
output_type: generate_until
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n\\n\\n"], max_gen_toks: 60, temperature: 0.0}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Both tasks, over a file of five sums."""
    directory = tmp_path_factory.mktemp("tasks")
    data = directory / "sums.jsonl"
    rows = [
        {"question": f"What is {a} + {b}?", "choices": [str(a + b), str(a + b + 1)], "label": 0, "answer": str(a + b)}
        for a, b in QUESTIONS
    ]
    data.write_text("\n".join(json.dumps(row) for row in rows))
    for name, text in (("choices", CHOICES), ("replies", REPLIES)):
        (directory / f"{name}.yaml").write_text(text.format(data=data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(directory / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield directory


def evaluated(tasks: Path, task: str, kind: str, url: str, **more: Any) -> Any:
    from lm_eval.tasks import TaskManager

    return lm_eval.simple_evaluate(
        model=kind,
        model_args={"base_url": url, "model": "tiny", "num_concurrent": 2, "max_retries": 1, **more.pop("args", {})},
        tasks=[task],
        task_manager=TaskManager(include_path=str(tasks), include_defaults=False),
        log_samples=True,
        bootstrap_iters=0,
        **more,
    )


@pytest.mark.slow
def test_likelihoods_are_those_of_the_model(tasks: Path, served: Served, model: Model) -> None:
    found = evaluated(
        tasks, "sums_by_likelihood", "local-completions", f"{served.url}/completions", batch_size=4,
        args={"tokenizer_backend": "remote"},
    )  # fmt: skip
    samples = sorted(found["samples"]["sums_by_likelihood"], key=lambda sample: sample["doc_id"])
    right = 0
    for sample, (a, b) in zip(samples, QUESTIONS, strict=True):
        context = model.tokenizer.encode(f"What is {a} + {b}? The answer is", add_special_tokens=False).ids
        own = []
        for choice, (likelihood, greedy) in zip((a + b, a + b + 1), sample["filtered_resps"], strict=True):
            text = f"What is {a} + {b}? The answer is {choice}"
            ids = model.tokenizer.encode(text, add_special_tokens=False).ids
            records = model.logprobs(ids, top=1)[len(context) - 1 :]
            own.append(sum(record.logprob for record in records))
            assert float(likelihood) == pytest.approx(own[-1], abs=1e-5)
            assert own[-1] == pytest.approx(float(model.score(ids)[len(context) - 1 :].sum()), abs=1e-4)
            assert str(greedy) == str(all(record.token == record.top[0].token for record in records))
        right += own[0] > own[1]
    assert found["results"]["sums_by_likelihood"]["acc,none"] == right / len(QUESTIONS)


@pytest.mark.slow
def test_replies_are_those_of_the_model(tasks: Path, served: Served, model: Model) -> None:
    found = evaluated(
        tasks, "sums_by_reply", "local-chat-completions", f"{served.url}/chat/completions", apply_chat_template=True,
        args={"eos_string": "never"},
    )  # fmt: skip
    samples = sorted(found["samples"]["sums_by_reply"], key=lambda sample: sample["doc_id"])
    right = 0
    for sample, (a, b) in zip(samples, QUESTIONS, strict=True):
        told = model.generate(f"What is {a} + {b}?", temperature=0.0, max_new_tokens=60, stop=["\n\n\n", "never"])
        assert sample["resps"][0][0] == told.answer
        right += told.answer == str(a + b)
    assert found["results"]["sums_by_reply"]["exact_match,none"] == right / len(QUESTIONS)
