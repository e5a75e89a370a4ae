"""Drawing samples: the interface of a model, encoding of prompts, reading of answers, samples on disk.

Start at ``protocol.SampledModel``, ``replies.Replies``, ``answers.read_reply`` and ``store.SampleStore``.

Never imports ``verify.models``, ``verify.gate`` or ``verify.report``.
"""
