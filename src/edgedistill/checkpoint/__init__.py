"""Any input as one ``types.Checkpoint``: config, tensors read row by row, tokenizer, chat template.

Start at ``open.open_checkpoint``. ``types.TensorSource`` is how weights are read;
``safetensors.SafetensorsSource``, ``gguf.tensors.GgufSource`` and ``lora.LoraSource`` are the sources there are. A
new file format is a new source and a branch in ``open.open_checkpoint``.

Never imports ``architecture``, ``graph`` or ``export``: nothing here knows ONNX.
"""
