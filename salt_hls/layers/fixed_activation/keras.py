"""Activation with a declared `ap_fixed` type (rounding and overflow of one's choice)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from salt_hls.errors import UserError
from salt_hls.layers.fixed_activation import operation
from salt_hls.layers.fixed_activation.operation import Function
from salt_hls.layers.keras_ops import ExactLayer, parsed_type, quantize


@tf.keras.utils.register_keras_serializable("salt_hls")
class FixedActivation(ExactLayer):
    """y = Q(function(x)).

    function: "linear" or "relu". output_type: `ap_fixed<...>` text, or `None` for float.
    """

    operation_class = operation.FixedActivation

    def __init__(
        self, function: Function = "linear", output_type: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if function not in ("linear", "relu"):
            raise UserError(f"layer {self.name}: function must be linear or relu, got {function!r}")
        self.function = function
        self.output_type = parsed_type(output_type)

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        return quantize(tf.nn.relu(inputs) if self.function == "relu" else inputs, self.output_type)
