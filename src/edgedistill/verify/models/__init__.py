"""Models that verification samples and scores: a bundle, the original in PyTorch, a server, a bundle that votes.

Start at ``bundle.BundleModel`` and ``torch.TorchModel``; all models implement
``verify.sampling.protocol.SampledModel``. ``teacher_forcing.force`` computes the logits before given tokens.

Never imports ``verify.gate`` or ``verify.report``.
"""
