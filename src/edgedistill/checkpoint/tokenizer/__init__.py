"""Tokenizers: read from a Hugging Face directory, or built as tokenizer.json from a vocabulary.

Start at ``files.read_tokenizer_json``, ``byte_level_bpe.build_byte_level_bpe`` and
``sentencepiece_bpe.build_sentencepiece_bpe``.

Never imports ``architecture``, ``graph`` or ``export``.
"""
