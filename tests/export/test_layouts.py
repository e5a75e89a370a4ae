"""Layouts: the programs that they are for open them, with the chat template, and answer what the bundle answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cli_support import here
from exporting import export

from edgedistill.bundle.bundle import Bundle
from edgedistill.errors import BundleError, OutputError, UsageError
from edgedistill.export.layouts import LAYOUTS, weight_type, write_layout
from edgedistill.runtime.model import open_bundle

QUESTIONS = ("What is 12 + 30?", "Mia has 14 apples. Mia gives away 7 apples. How many apples does Mia have now?")
JAVASCRIPT = """\
import { AutoModelForCausalLM, AutoTokenizer, env } from "@huggingface/transformers";
env.allowRemoteModels = false;
env.localModelPath = process.argv[2];
const tokenizer = await AutoTokenizer.from_pretrained(process.argv[3]);
const model = await AutoModelForCausalLM.from_pretrained(process.argv[3]);
for (const content of process.argv.slice(4)) {
  const options = { add_generation_prompt: true, return_dict: true };
  const inputs = tokenizer.apply_chat_template([{ role: "user", content }], options);
  const output = await model.generate({ ...inputs, max_new_tokens: 80, do_sample: false });
  const start = inputs.input_ids.dims[1];
  console.log(JSON.stringify(output.tolist()[0].slice(start).map(Number)));
}
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return Bundle.open(export("tiny-reasoner", tmp_path_factory.mktemp("layouts") / "bundle").path)


@pytest.fixture(scope="module")
def expected(bundle: Bundle) -> list[list[int]]:
    """The bundle's own greedy tokens, end of turn included."""
    with open_bundle(bundle.path, threads=1) as model:
        found = []
        for question in QUESTIONS:
            text = model.generate(question, temperature=0, max_new_tokens=80).text
            ids = model.encode(model.render(question) + text)[len(model.encode(model.render(question))) :]
            found.append([*ids, bundle.manifest.model.eos_token_ids[0]])
    return found


@pytest.fixture(scope="module")
def laid_out(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("laid-out")
    for layout in LAYOUTS:
        write_layout(bundle, layout, root / layout)
    return root


@pytest.mark.parametrize(("layout", "options"), [("optimum", {}), ("hub", {"subfolder": "onnx"})])
def test_optimum_answers_alone_and_in_a_batch(
    layout: str, options: dict[str, str], laid_out: Path, expected: list[list[int]]
) -> None:
    pytest.importorskip("optimum.onnxruntime")
    from optimum.onnxruntime import ORTModelForCausalLM
    from transformers import AutoTokenizer

    directory = laid_out / layout
    tokenizer = AutoTokenizer.from_pretrained(directory, padding_side="left")
    model = ORTModelForCausalLM.from_pretrained(directory, **options)
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    wanted = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
    for chat, tokens in zip(chats, expected, strict=True):
        inputs = tokenizer.apply_chat_template(chat, **wanted)
        out = model.generate(**inputs, max_new_tokens=80, do_sample=False)
        assert out[0, inputs["input_ids"].shape[1] :].tolist() == tokens
    inputs = tokenizer.apply_chat_template(chats, padding=True, **wanted)
    assert (inputs["attention_mask"] == 0).any(), "two prompts of one length would show nothing"
    rows = model.generate(**inputs, max_new_tokens=80, do_sample=False)[:, inputs["input_ids"].shape[1] :].tolist()
    pad = tokenizer.pad_token_id
    assert [row[: len(tokens)] for row, tokens in zip(rows, expected, strict=True)] == expected
    assert all(set(row[len(tokens) :]) <= {pad} for row, tokens in zip(rows, expected, strict=True))


@pytest.mark.parametrize("directory", ["genai", "the bundle itself"])
def test_genai_answers(directory: str, bundle: Bundle, laid_out: Path, expected: list[list[int]]) -> None:
    og = pytest.importorskip("onnxruntime_genai")
    model = og.Model(str(laid_out / directory if directory in LAYOUTS else bundle.path))
    tokenizer = og.Tokenizer(model)
    for question, tokens in zip(QUESTIONS, expected, strict=True):
        chat = json.dumps([{"role": "user", "content": question}])
        prompt = tokenizer.encode(tokenizer.apply_chat_template(chat, add_generation_prompt=True))
        params = og.GeneratorParams(model)
        params.set_search_options(do_sample=False, max_length=len(prompt) + 80)
        generator = og.Generator(model, params)
        generator.append_tokens(prompt)
        while not generator.is_done():
            generator.generate_next_token()
        found = [int(token) for token in generator.get_sequence(0)[len(prompt) :]]
        assert found == tokens[:-1]  # it leaves the end out


def test_plain_onnxruntime_runs_the_portable_graph(laid_out: Path, bundle: Bundle, expected: list[list[int]]) -> None:
    import onnx
    import onnxruntime as ort

    path = laid_out / "transformers.js" / "onnx" / "model_q4.onnx"
    graph = onnx.load(path, load_external_data=False).graph
    # The newest packages of onnxruntime on npm know 16 inputs of this operator.
    assert max(len(node.input) for node in graph.node if node.op_type == "GroupQueryAttention") <= 16
    assert {d.dim_param for v in graph.input for d in v.type.tensor_type.shape.dim if d.dim_param} == {
        "batch_size", "sequence_length", "past_sequence_length", "total_sequence_length"
    }  # fmt: skip
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    with open_bundle(bundle.path, threads=1) as model:
        tokens = model.encode(model.render(QUESTIONS[0]))
    info = bundle.manifest.model
    empty = np.zeros((1, info.num_key_value_heads, 0, info.head_dim), dtype=np.float32)
    past = {f"past_key_values.{i}.{k}": empty for i in range(info.num_hidden_layers) for k in ("key", "value")}
    names = ["logits", *(name.replace("past_key_values", "present") for name in past)]
    found: list[int] = []
    new = tokens
    while len(found) < len(expected[0]):
        total = len(tokens) + len(found)
        feeds = {
            "input_ids": np.array([new], dtype=np.int64),
            "attention_mask": np.ones((1, total), dtype=np.int64),
            "position_ids": np.arange(total - len(new), total, dtype=np.int64)[None],
        }
        logits, *present = session.run(names, feeds | past)
        past = dict(zip(past, present, strict=True))
        found.append(int(logits[0, -1].argmax()))
        new = found[-1:]
    assert found == expected[0]


@pytest.mark.slow
def test_transformers_js_answers_under_node(
    laid_out: Path, expected: list[list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    directory = tmp_path_factory.mktemp("node")
    (directory / "package.json").write_text('{"private": true, "type": "module"}')
    # The scripts would fetch libraries for graphics cards; those for the CPU are in the package.
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "@huggingface/transformers@4"]
    installed = subprocess.run(install, cwd=directory, capture_output=True, text=True, timeout=600, check=False)
    if installed.returncode != 0:
        pytest.skip(f"transformers.js cannot be installed: {installed.stderr[-200:]}")
    (directory / "answer.js").write_text(JAVASCRIPT)
    for layout in ("transformers.js", "hub"):
        command = ["node", "answer.js", str(laid_out), layout, *QUESTIONS]
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        assert [json.loads(line) for line in done.stdout.splitlines()] == expected


def test_the_hub_layout_holds_the_bundle(laid_out: Path, bundle: Bundle) -> None:
    inside = Bundle.open(laid_out / "hub" / "edgedistill", check="full")
    assert inside.identity() == bundle.identity()
    card = (laid_out / "hub" / "README.md").read_text()
    assert 'file_name="model_q4.onnx"' in card
    assert "edgedistill run edgedistill" in card
    assert card.count("## Short verification") == (bundle.path / "README.md").read_text().count("## Short verification")


def test_the_type_of_most_weights_names_the_file(tmp_path: Path, tiny_checkpoint_dir: Path) -> None:
    found = {}
    for fmt in ("int8", "int5", "fp32"):
        export(tiny_checkpoint_dir, tmp_path / fmt, format=fmt)
        found[fmt] = weight_type(Bundle.open(tmp_path / fmt))
    assert found == {"int8": "q8", "int5": "q8", "fp32": "fp32"}
    names = write_layout(Bundle.open(tmp_path / "int5"), "transformers.js", tmp_path / "web")
    assert "onnx/model_quantized.onnx" in names
    assert json.loads((tmp_path / "web" / "config.json").read_text())["transformers.js_config"] == {
        "dtype": "q8",
        "use_external_data_format": {"model_quantized.onnx": 1},
    }


def test_what_is_refused(tmp_path: Path, bundle: Bundle) -> None:
    with pytest.raises(UsageError, match=r"no layout 'web'.*optimum, transformers\.js, genai, hub"):
        write_layout(bundle, "web", tmp_path / "out")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine").write_text("mine")
    with pytest.raises(OutputError, match="replaces nothing"):
        write_layout(bundle, "optimum", tmp_path / "used")
    old = tmp_path / "old"
    shutil.copytree(bundle.path, old)
    manifest = json.loads((old / "manifest.json").read_text())
    manifest["files"] = [entry for entry in manifest["files"] if entry["name"] != "model-portable.onnx"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    (old / "model-portable.onnx").unlink()
    with pytest.raises(BundleError, match=r"no model-portable\.onnx.*Export it again"):
        write_layout(Bundle.open(old), "optimum", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "used"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgedistill.export import layouts

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(layouts, "_copy", full)
    with pytest.raises(OutputError, match="The disk is full"):
        write_layout(bundle, "hub", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_from_the_command_line(tmp_path: Path, tiny_checkpoint_dir: Path, bundle: Bundle) -> None:
    done = here("layout", str(bundle.path), "optimum", "-o", str(tmp_path / "optimum"), "--json")
    assert set(done.json["files"]) == {path.name for path in (tmp_path / "optimum").iterdir()}
    target = str(tmp_path / "genai")
    made = here("export", str(tiny_checkpoint_dir), "--layout", "genai", "--no-verify", "-o", target)
    assert made.code == 0, made.err
    assert "README.md says how to open it" in made.out
    assert (tmp_path / "genai" / "genai_config.json").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["genai", "optimum"], "the bundle beside it is gone"
    again = here("export", str(tiny_checkpoint_dir), "--layout", "genai", "-o", target)
    assert "replaces nothing" in again.one_error()
