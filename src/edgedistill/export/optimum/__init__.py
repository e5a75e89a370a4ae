"""The fallback exporter: architectures without a row in ``architecture.families``, traced by optimum-onnx (an extra).

Start at ``exporter.FallbackExporter``; ``trace.export_with_optimum`` traces, ``quantize_onnx.quantize_graph``
quantizes.

Never imports ``planning``, ``workflow`` or ``cli``; PyTorch only inside the functions that trace.
"""
