"""Model families: a checkpoint's ``config.json`` becomes a ``spec.ModelSpec``, free of files and operators.

A new model family is a row in ``family_table``. Start at ``families.build_spec``; ``weights.logical_weights``
lists the tensors that the model needs, ``rope.rope_spec`` reads the rotary embedding. What the family needs of the
ONNX graph beyond that goes into the room ``graph``. ``levels`` holds the table of what tests have shown of each family.

Never imports ``graph``, ``runtime`` or ``export``.
"""
