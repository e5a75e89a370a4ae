"""Drawing samples: the protocol of a model, prompts to tokens, replies to answers, samples kept on disk.

Start at ``protocol.SampledModel``, ``replies.Replies``, ``answers.read_reply`` and ``store.SampleStore``.

Never imports ``verify.models``, ``verify.gate`` or ``verify.report``.
"""
