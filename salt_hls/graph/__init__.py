"""The graph that firmware is made from: tensors, operations, their loops on streams."""
