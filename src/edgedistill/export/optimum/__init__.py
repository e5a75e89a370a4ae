"""The fallback exporter: traces architectures that ``architecture.families`` lacks with optimum-onnx (an extra).

Start at ``exporter.FallbackExporter``; ``trace.export_with_optimum`` traces, ``quantize_onnx.quantize_graph``
quantizes.

Never imports ``planning``, ``workflow`` or ``cli``; PyTorch only inside the functions that trace.
"""
