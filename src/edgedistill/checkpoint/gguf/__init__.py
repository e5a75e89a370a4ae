"""GGUF files: header, tensors and tokenizer, under the names that Hugging Face uses.

Start at ``open.load_gguf``. ``header.read_header`` checks every count and offset before it is used,
``tensors.GgufSource`` dequantizes rows, ``architectures`` holds a row per architecture.

Never imports ``architecture``, ``graph`` or ``export``.
"""
