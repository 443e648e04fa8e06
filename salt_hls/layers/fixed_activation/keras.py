"""Activation with a declared `ap_fixed` type (rounding and overflow of one's choice)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from salt_hls.errors import UserError
from salt_hls.fixed import ElementTypes
from salt_hls.layers.fixed_activation import operation
from salt_hls.layers.fixed_activation.operation import Function
from salt_hls.layers.keras_ops import ExactLayer, parsed_type, quantize, quantize_elements


@tf.keras.utils.register_keras_serializable("salt_hls")
class FixedActivation(ExactLayer):
    """y = Q(function(x)).

    function: "linear" or "relu". output_type: `ap_fixed<...>` text, or `None` for float.

    elements: whether each element of the tensor has bits of its own, inside `output_type`, which
    must be RND, SAT: the weights `integer_bits` (without the sign) and `fraction_bits`, of the
    input's shape, rounded where they are used (`fixed.ElementTypes`). They begin as those of
    `output_type`.
    """

    operation_class = operation.FixedActivation

    def __init__(
        self,
        function: Function = "linear",
        output_type: str | None = None,
        elements: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if function not in ("linear", "relu"):
            raise UserError(f"layer {self.name}: function must be linear or relu, got {function!r}")
        self.function = function
        self.output_type = parsed_type(output_type)
        if not isinstance(elements, bool):
            raise UserError(f"layer {self.name}: elements must be true or false, got {elements!r}")
        self.elements = elements
        if elements:
            if self.output_type is None:
                raise UserError(
                    f"layer {self.name}: elements need an output_type that holds them; give "
                    "ap_fixed<W,I,RND,SAT>"
                )
            ElementTypes.check_container(self.output_type, self.name)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if self.elements and self.output_type:
            (shape,), to = self.shapes, self.output_type
            if None in shape:
                raise UserError(
                    f"layer {self.name}: elements need an input of known shape, got {shape}"
                )
            for name, bits in (
                ("integer_bits", to.int_bits - to.signed),
                ("fraction_bits", to.frac_bits),
            ):
                start = tf.keras.initializers.Constant(bits)
                setattr(self, name, self.add_weight(name=name, shape=shape, initializer=start))

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        x = tf.nn.relu(inputs) if self.function == "relu" else inputs
        if self.elements and self.output_type:
            return quantize_elements(x, self.integer_bits, self.fraction_bits, self.output_type)
        return quantize(x, self.output_type)
