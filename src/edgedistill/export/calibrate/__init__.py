"""Quantization by what layers compute on real text: run layer by layer, in the memory of one layer.

Start at ``gptq_layers.write_calibrated`` (weights), ``kv_cache.calibrate`` (scales of a quantized KV cache) and
``smoothquant.prepare`` (outliers of activations moved into weights). The arithmetic itself is in ``quantize.gptq``.

Never imports ``planning``, ``workflow`` or ``cli``.
"""
