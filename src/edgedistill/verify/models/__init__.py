"""What can be sampled and scored: a bundle, the original in PyTorch, a bundle that votes.

Start at ``bundle.BundleModel`` and ``torch.TorchModel``, both of the protocol
``verify.sampling.protocol.SampledModel``; ``teacher_forcing.force`` gives the logits before given tokens.

Never imports ``verify.gate`` or ``verify.report``.
"""
