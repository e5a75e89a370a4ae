"""Writes a bundle as a directory that another program opens: optimum, transformers.js or onnxruntime-genai.

``optimum`` and ``transformers.js`` get the portable graph, ``genai`` the graph for onnxruntime-genai. ``hub`` is the
layout of transformers.js with the bundle itself in a folder, so that one repository serves all of them. The weights are
copied under the file name that each program looks for, and the graph's references are changed to that name.
"""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from edgedistill.bundle import bundle as files
from edgedistill.bundle import own_directory
from edgedistill.bundle.signature import SIGNATURE
from edgedistill.bundle.staging import disk_errors
from edgedistill.errors import BundleError, UsageError
from edgedistill.export.options import Layout
from edgedistill.export.text_files import ORIGINAL_CARD
from edgedistill.extras import require_export
from edgedistill.progress import NullProgress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgedistill.bundle.bundle import Bundle
    from edgedistill.progress import Progress

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
BUNDLE_FOLDER = "edgedistill"
"""Folder of the bundle in the layout ``hub``."""
_SUFFIXES = {4: "q4", 8: "q8", 16: "fp16", 32: "fp32"}
_FILE_ENDINGS = {"q4": "_q4", "q8": "_quantized", "fp16": "_fp16", "fp32": ""}
"""File name endings by the name that transformers.js has for a type of weights."""
_TOKENIZER = (files.TOKENIZER, files.TOKENIZER_CONFIG, files.CHAT_TEMPLATE)
_NEVER = frozenset({files.MANIFEST, files.MODEL_CARD, ORIGINAL_CARD})


@dataclass(frozen=True, slots=True)
class Graph:
    """A graph to write: the bundle's file ``source`` as ``target``, with its weights in the file ``data``."""

    source: str
    target: str
    data: str


def weight_type(bundle: Bundle) -> str:
    """What transformers.js calls the type that most of the weights have: q4, q8, fp16 or fp32."""
    elements: Counter[int] = Counter()
    for weight in bundle.manifest.weights:
        elements[weight.format.bits] += math.prod(weight.shape)
    bits = elements.most_common(1)[0][0]
    return _SUFFIXES[min((known for known in _SUFFIXES if known >= bits), default=32)]


def check(bundle: Bundle, layout: str) -> None:
    """Refuse a bundle that cannot be written in ``layout``.

    Raises:
        UsageError: No such layout.
        BundleError: The bundle lacks a file that the layout needs (it was made by an older version or by the fallback
            exporter), or no other program runs its graph (recurrent layers, layers that share keys or differ in size).
    """
    if layout not in LAYOUTS:
        raise UsageError(f"There is no layout {layout!r}; expected one of {', '.join(LAYOUTS)}.")
    if not bundle.manifest.model.is_uniform:
        kind = "with recurrent layers" if bundle.manifest.model.states else "whose layers share keys or differ in size"
        raise BundleError(
            f"{bundle.path} is a model {kind}, whose graph no other program feeds.",
            hint="Use it with edgedistill run, chat or serve.",
        )
    own = bundle.manifest.model.signature == "edgedistill"
    if layout == "genai" and not own:
        raise BundleError(
            "The fallback exporter made this bundle, and its graph is not one that onnxruntime-genai feeds.",
            hint="Choose the layout optimum or transformers.js.",
        )
    names = {entry.name for entry in bundle.manifest.files}
    needed = [files.CONFIG, files.GENAI_MODEL if layout == "genai" else files.PORTABLE_MODEL if own else files.MODEL]
    if absent := [name for name in needed if name not in names]:
        raise BundleError(
            f"{bundle.path} has no {absent[0]}, which older versions did not write.", hint="Export it again."
        )


def write_layout(bundle: Bundle, layout: str, out: Path, *, progress: Progress | None = None) -> tuple[str, ...]:
    """Write ``bundle`` in ``layout`` to the directory ``out``, which appears when complete; returns its file names.

    Args:
        bundle: An opened bundle.
        layout: One of ``LAYOUTS``.
        out: A directory that does not exist, or is empty.
        progress: Receives bytes of weights.

    Raises:
        UsageError, BundleError: See ``check``.
        OutputError: ``out`` is in use, or cannot be written; nothing half-written is left.
        MissingExtraError: The extra ``export`` is not installed.
    """
    require_export("Writing a layout")
    check(bundle, layout)
    with disk_errors(out), own_directory.appearing(out) as partial:
        _fill(bundle, layout, partial, progress or NullProgress())
        found = (p.relative_to(partial).as_posix() for p in partial.rglob("*") if p.is_file())
        return tuple(sorted(name for name in found if name != own_directory.MARKER))


def _fill(bundle: Bundle, layout: str, directory: Path, progress: Progress) -> None:
    kind = weight_type(bundle)
    graphs = _graphs(bundle, layout, kind)
    weights = bundle.path / files.WEIGHTS
    progress.begin("copying weights", weights.stat().st_size * (len(graphs) + (layout == "hub")), "bytes")
    for graph in graphs:
        _write_graph(bundle, graph, directory)
        _copy(weights, directory / graph.data, progress)
    if layout == "hub":
        folder = directory / BUNDLE_FOLDER
        folder.mkdir()
        for name in (files.MANIFEST, SIGNATURE, files.MODEL_CARD, *(entry.name for entry in bundle.manifest.files)):
            if (bundle.path / name).is_file():
                _copy(bundle.path / name, folder / name, progress if name == files.WEIGHTS else None)
    progress.end()
    listed = {entry.name for entry in bundle.manifest.files}
    texts = {name for name in listed if not name.endswith((".onnx", ".bin", ".json", ".jinja"))} - _NEVER
    for name in {*_TOKENIZER, files.CONFIG, files.GENERATION_CONFIG, *texts} & listed:
        shutil.copyfile(bundle.path / name, directory / name)
    if layout == "genai":
        config = json.loads(bundle.read(files.GENAI_CONFIG))
        config["model"]["decoder"]["filename"] = graphs[0].target
        _write_json(directory / files.GENAI_CONFIG, config)
    if layout in ("transformers.js", "hub"):
        config = json.loads(bundle.read(files.CONFIG))
        name = graphs[0].target.rpartition("/")[2]
        config["transformers.js_config"] = {"dtype": kind, "use_external_data_format": {name: 1}}
        _write_json(directory / files.CONFIG, config)
    card = (bundle.path / files.MODEL_CARD).read_text(encoding="utf-8")
    (directory / files.MODEL_CARD).write_text(with_usage(card, layout, graphs), encoding="utf-8")


def _graphs(bundle: Bundle, layout: str, kind: str) -> tuple[Graph, ...]:
    portable = files.PORTABLE_MODEL if bundle.manifest.model.signature == "edgedistill" else files.MODEL
    if layout == "genai":
        return (Graph(files.GENAI_MODEL, "model.onnx", "model.onnx.data"),)
    if layout == "optimum":
        return (Graph(portable, "model.onnx", "model.onnx_data"),)
    name = f"onnx/model{_FILE_ENDINGS[kind]}.onnx"
    return (Graph(portable, name, f"{name}_data"),)


def _write_graph(bundle: Bundle, graph: Graph, directory: Path) -> None:
    """The graph under its new name, with the weights' new name in every reference."""
    import onnx
    from onnx.external_data_helper import uses_external_data

    model = onnx.load_model_from_string(bundle.read(graph.source))
    for tensor in model.graph.initializer:
        if uses_external_data(tensor):
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = graph.data.rpartition("/")[2]
    target = directory / graph.target
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(model.SerializeToString())


def _copy(source: Path, target: Path, progress: Progress | None) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(8 << 20):
            writer.write(chunk)
            if progress is not None:
                progress.advance(len(chunk))


def with_usage(card: str, layout: str, graphs: tuple[Graph, ...]) -> str:
    """The bundle's card, with how to open this layout in place of how to run a bundle."""
    path = graphs[0].target
    usage = {
        "optimum": _OPTIMUM.format(where='"."'),
        "transformers.js": _JAVASCRIPT,
        "genai": _GENAI,
        "hub": f"{_JAVASCRIPT}\n{_OPTIMUM.format(where=_subfolder(path))}\n{_OWN}",
    }[layout]
    before, found, after = card.partition("Run it, with edgedistill installed:")
    if not found:
        return f"{card.rstrip()}\n\n{usage}"
    return before + usage + after.partition("```sh")[2].partition("```\n")[2]


def _subfolder(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f'".", subfolder="{folder}", file_name="{name}"'


_OPTIMUM = """\
With optimum, in Python:

```python
from optimum.onnxruntime import ORTModelForCausalLM

model = ORTModelForCausalLM.from_pretrained({where})
```
"""
_JAVASCRIPT = """\
With transformers.js:

```js
import { AutoModelForCausalLM } from "@huggingface/transformers";

const model = await AutoModelForCausalLM.from_pretrained(".");
```
"""
_GENAI = """\
With onnxruntime-genai, in Python:

```python
import onnxruntime_genai

model = onnxruntime_genai.Model(".")
```
"""
_OWN = f"""\
With edgedistill installed:

```sh
edgedistill run {BUNDLE_FOLDER} "your question"
```
"""


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
