"""From an opened checkpoint to a bundle: choose formats, quantize and write the weights, write the graph, try it.

Start at ``pipeline.export``, which reads top to bottom. ``plan.make_plan`` takes every decision before a weight is
read, ``writer.WeightsWriter`` streams the weights, ``native.OwnExporter`` writes the graphs of the families in
``architecture.families``, ``trial_run.checked`` decodes a few tokens with the result. ``layouts.write_layout`` writes a
finished bundle as other programs expect a model.

Never imports ``planning``, ``workflow`` or ``cli``.
"""
