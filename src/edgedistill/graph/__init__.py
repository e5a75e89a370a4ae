"""The decoder as an ONNX graph of fused operators, with its weights as references into a file.

Start at ``decoder.build_graph``, which takes an ``architecture.spec.ModelSpec``. ``attention.attention`` is one
attention block, ``weights.WeightEmitter`` turns a stored format into operators, ``parts.build_layer`` builds a single
layer for calibration. What a model family needs of the graph (a norm, an activation, a kind of attention) is added
here, from fields of ``architecture.spec.LayerSpec``.

Never imports ``runtime``, ``export`` or ``verify``.
"""
