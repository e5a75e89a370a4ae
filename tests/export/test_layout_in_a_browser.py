"""transformers.js in a browser: a page opens the layout from local files and answers as the bundle does.

In float32: onnxruntime-web's WebAssembly has no operator for a quantized embedding.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, browser
from waiting import PATIENCE_S

from edgedistill.bundle.bundle import Bundle
from edgedistill.export.layouts import write_layout
from edgedistill.runtime.model import open_bundle

QUESTION = "What is 12 + 30?"
PAGE = """\
<!doctype html>
<script type="importmap">
{ "imports": {
  "transformers": "/node_modules/@huggingface/transformers/dist/transformers.web.js",
  "onnxruntime-web": "/node_modules/onnxruntime-web/dist/ort.bundle.min.mjs",
  "onnxruntime-web/webgpu": "/node_modules/onnxruntime-web/dist/ort.webgpu.bundle.min.mjs",
  "onnxruntime-common": "/node_modules/onnxruntime-common/dist/esm/index.js"
} }
</script>
<script type="module">
try {
  const { AutoModelForCausalLM, AutoTokenizer, env } = await import("transformers");
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = "/";
  env.useBrowserCache = false;
  env.backends.onnx.wasm.wasmPaths = "/node_modules/onnxruntime-web/dist/";
  env.backends.onnx.wasm.numThreads = 1;
  const tokenizer = await AutoTokenizer.from_pretrained("layout");
  const model = await AutoModelForCausalLM.from_pretrained("layout", { device: "wasm" });
  const options = { add_generation_prompt: true, return_dict: true };
  const inputs = tokenizer.apply_chat_template([{ role: "user", content: QUESTION }], options);
  const output = await model.generate({ ...inputs, max_new_tokens: 80, do_sample: false });
  const start = inputs.input_ids.dims[1];
  window.told = output.tolist()[0].slice(start).map(Number);
} catch (error) {
  window.told = String(error.stack ?? error);
}
</script>
"""


class Site(SimpleHTTPRequestHandler):
    """Files of a directory."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def log_message(self, *_: object) -> None:
        pass


async def told_by(address: str, directory: Path) -> Any:
    """What the page at ``address`` tells in the end."""
    async with browser(directory) as page, asyncio.timeout(PATIENCE_S):
        await page.call("Page.navigate", url=address)
        while (told := await page.evaluate("window.told")) is None:
            await asyncio.sleep(0.1)
        return told


@pytest.mark.slow
def test_a_page_answers_as_the_bundle(reasoner: Callable[[str], Path], tmp_path: Path) -> None:
    if CHROMIUM is None or shutil.which("npm") is None:
        pytest.skip("chromium and npm are not installed")
    (tmp_path / "package.json").write_text('{"private": true}')
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "@huggingface/transformers@4"]
    installed = subprocess.run(install, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    if installed.returncode != 0:
        pytest.skip(f"transformers.js cannot be installed: {installed.stderr[-200:]}")
    bundle = Bundle.open(reasoner("fp32"))
    write_layout(bundle, "transformers.js", tmp_path / "layout")
    (tmp_path / "index.html").write_text(PAGE.replace("QUESTION", json.dumps(QUESTION)))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        told = asyncio.run(told_by(f"http://127.0.0.1:{server.server_address[1]}/index.html", tmp_path))
    finally:
        server.shutdown()
        server.server_close()
    with open_bundle(bundle.path, threads=1) as model:
        text = model.generate(QUESTION, temperature=0, max_new_tokens=80).text
        start = len(model.encode(model.render(QUESTION)))
        expected = [*model.encode(model.render(QUESTION) + text)[start:], bundle.manifest.model.eos_token_ids[0]]
    assert told == expected
