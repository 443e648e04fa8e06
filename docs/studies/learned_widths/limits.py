"""Fixed sizes of SAL-T here, what its learned widths can be, and the names of its weights."""

from __future__ import annotations

from typing import NamedTuple

PARTITIONS, HEADS, HEIGHT, CLASSES = 4, 4, 5, 5

WEIGHT_FRACTION, WEIGHT_MAX = 6, 2.0
"""Weights and biases: ap_fixed<8,2> at most, so within -2 ... 2 - 2^-6."""

INTEGER_MIN, FRACTION_MIN = -5.0, -3.0
"""Integer bits count those without the sign."""


class Activation(NamedTuple):
    """What an activation can have: a sign, and bits at most."""

    signed: bool = True
    integer: float = 4.0
    fraction: float = 6.0


ACTIVATIONS = {
    "x": Activation(fraction=5.0),  # (N, 3)
    "embed": Activation(signed=False),  # (N, d)
    "query": Activation(),  # (N, d)
    "key_projection": Activation(),  # (p, H d)
    "key": Activation(),  # (p, d)
    "value_projection": Activation(),  # (p, H d)
    "value": Activation(),  # (p, d)
    "context": Activation(integer=8.0),  # one width for all
    "attention": Activation(),  # (N, d)
    "tanh1_input": Activation(),  # (N, d)
    "tanh1_output": Activation(integer=0.0),  # (N, d)
    "feed_forward": Activation(signed=False),  # (N, feed_forward)
    "query_filter": Activation(),  # (N, d)
    "head": Activation(signed=False),  # (d,)
}
"""With learned widths, element by element."""


def is_width(name: str) -> bool:
    """Widths have a colon in their name."""
    return ":" in name


def is_matrix(name: str) -> bool:
    """Kernels and biases: what is quantized as a weight."""
    return name.endswith((".kernel", ".bias")) and not is_width(name)
