"""Running a bundle: session, KV cache, decoding loop, sampling, chat template, statistics.

Start at ``model.open_bundle`` and ``model.Model``. Below it ``generate.TokenLoop`` is the loop, ``decoder.Decoder`` a
step of a batch, ``session.DecoderSession`` the loaded graph, ``sampling.Sampler`` the choice of a token. Beside it
``prompting.Prompting`` makes prompts and masks.

Never imports ``export``, ``verify``, ``graph``; neither torch nor transformers nor onnx is loaded by it.
"""
