"""SAL-T, Linformer and full-attention taggers, float and quantized, from one configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from pydantic import ValidationError
from qkeras import QActivation, QDense, get_quantizer

from salt_hls.config import Feature, Inputs, ModelConfig, Types, first_fault
from salt_hls.errors import UserError
from salt_hls.fixed import FixedType
from salt_hls.layers import KERAS_CLASSES, keras_class
from salt_hls.layers.conv_attention.keras import ConvAttention
from salt_hls.layers.conv_attention.operation import scale_shift, type_names
from salt_hls.layers.dynamic_tanh.keras import DynamicTanh
from salt_hls.layers.fixed_activation.keras import FixedActivation
from salt_hls.layers.fixed_activation.operation import Function
from salt_hls.layers.head_dense.keras import HeadDense
from salt_hls.layers.head_filter.keras import HeadFilter
from salt_hls.layers.head_filter.operation import padding
from salt_hls.layers.keras_ops import quantizer_of
from salt_hls.layers.learned_bits import LearnedBits
from salt_hls.layers.partitioned_projection.keras import PartitionedProjection
from salt_hls.layers.partitioned_projection.operation import Mode
from salt_hls.layers.types import qkeras_text
from salt_hls.models.saved import check_no_code
from salt_hls.models.weights import require_finite

Add = tf.keras.layers.Add

EXACT = "ap_fixed<24,11>"
"""Holds every sum and product of a tagger's layers exactly: as many bits as float32, in which Keras
computes."""


class Builder:
    """Makes each layer float or quantized, by whether there are types.

    particles: the model's input (batch, N, features), on the input grid.
    """

    def __init__(self, config: ModelConfig, types: Types | None, particles: tf.Tensor) -> None:
        self.config = config
        self.types = types
        self.particles = particles

    def text(self, name: str) -> str | None:
        return None if self.types is None else str(getattr(self.types, name))

    def weights(self, layer: str) -> Any:
        return None if self.types is None else qkeras_text(self.types.weight(layer))

    def activation(self, function: Function, kind: str | None, name: str) -> FixedActivation:
        """Rounds to the type `kind`, or each element to its own inside it, as the YAML says."""
        return FixedActivation(function, kind, elements=self.own_elements, name=name)

    @property
    def own_elements(self) -> bool:
        return self.types is not None and self.config.widths.activations == "element"

    def result(self, kind: str | None) -> str | None:
        """What a layer rounds its result to: `kind`, or nothing where its elements are rounded
        next, so that they are rounded once."""
        return EXACT if self.own_elements else kind

    def narrowed(self, x: tf.Tensor, kind: str | None, name: str) -> tf.Tensor:
        """A `result` of type `kind`, each element in its own type, where elements have any."""
        return self.activation("linear", kind, f"{name}_fixed")(x) if self.own_elements else x

    def dense(self, prefix: str, layer: str, units: int, bias: bool = True) -> QDense:
        biases = None if self.types is None else qkeras_text(self.types.biases)
        return QDense(
            units,
            use_bias=bias,
            kernel_quantizer=self.weights(layer),
            bias_quantizer=biases if bias else None,
            name=prefix + layer,
        )

    def project(self, x: tf.Tensor, prefix: str, what: str, mode: Mode) -> tf.Tensor:
        kind = self.text(f"{what}_projection")
        projection = PartitionedProjection(
            self.config.heads,
            self.config.partitions,
            mode=mode,
            broadcast=self.config.project_first,
            kernel_quantizer=self.weights(f"{what}_projection"),
            output_type=self.result(kind),
            name=f"{prefix}{what}_projection",
        )
        return self.narrowed(projection(x), kind, projection.name)

    def filtered(self, x: tf.Tensor, prefix: str, what: str, heights: Sequence[int]) -> tf.Tensor:
        """Queries or keys behind their own filters, if they have any."""
        if what not in self.config.filtered:
            return x
        kind = self.text(f"{what}_filter")
        filters = HeadFilter(
            self.config.heads,
            heights,
            kernel_quantizer=self.weights(f"{what}_filter"),
            output_type=self.result(kind),
            name=f"{prefix}{what}_filter",
        )
        return self.narrowed(filters(x), kind, filters.name)

    def keys_and_values(self, x: tf.Tensor, prefix: str) -> list[tf.Tensor]:
        """K' and V' (batch, p, d); plain K and V (batch, N, d) for full attention."""
        config = self.config
        outputs = []
        projected = None
        for what, mode in (("key", config.keys), ("value", config.values)):
            if config.attention == "projected" and config.project_first:
                if projected is None or not config.share_projections:
                    projected = self.project(x, prefix, what, mode)
                heads = HeadDense(
                    config.heads,
                    config.width // config.heads,
                    kernel_quantizer=self.weights(what),
                    output_type=self.result(self.text(what)),
                    name=prefix + what,
                )
                outputs.append(self.narrowed(heads(projected), self.text(what), heads.name))
                continue
            y = self.dense(prefix, what, config.width, bias=False)(x)
            y = self.activation("linear", self.text(what), f"{prefix}{what}_fixed")(y)
            if config.attention == "projected":
                y = self.project(y, prefix, what, mode)
            outputs.append(y)
        return outputs

    def block(self, x: tf.Tensor, prefix: str) -> tf.Tensor:
        """Attention and feed-forward, with residuals and dynamic tanh."""
        if self.config.block == "parallel":
            # The attention is there last: it meets the sum of the others.
            rest = Add(name=f"{prefix}residual1")([x, self.feed_forward(x, prefix)])
            total = Add(name=f"{prefix}residual2")([rest, self.attention(x, prefix)])
            return self.tanh(total, prefix, "tanh1")
        attended = Add(name=f"{prefix}residual1")([x, self.attention(x, prefix)])
        middle = self.tanh(attended, prefix, "tanh1")
        total = Add(name=f"{prefix}residual2")([middle, self.feed_forward(middle, prefix)])
        return self.tanh(total, prefix, "tanh2")

    def attention(self, x: tf.Tensor, prefix: str) -> tf.Tensor:
        """What attention adds to x (batch, N, d)."""
        config = self.config
        query = self.dense(prefix, "query", config.width, bias=False)(x)
        query = self.activation("linear", self.text("query"), f"{prefix}query_fixed")(query)
        query = self.filtered(query, prefix, "query", config.filter_heights)
        key, value = self.keys_and_values(x, prefix)
        key = self.filtered(key, prefix, "key", (config.partitions,))
        return self.dense(prefix, "output", config.width)(self.attend([query, key, value], prefix))

    def feed_forward(self, x: tf.Tensor, prefix: str) -> tf.Tensor:
        """What the feed-forward layers add to x (batch, N, d)."""
        hidden = self.dense(prefix, "ff1", self.config.feed_forward)(x)
        relu = self.activation("relu", self.text("feed_forward"), f"{prefix}ff1_relu")
        return self.dense(prefix, "ff2", self.config.width)(relu(hidden))

    def attend(self, tensors: list[tf.Tensor], prefix: str) -> tf.Tensor:
        """Attention of queries (batch, N, d) to keys and values (batch, p, d)."""
        config, types, kind = self.config, None, None
        heights, normalize = config.kernel_heights, config.softmax.normalize
        if self.types is not None:
            names = type_names(bool(heights), normalize)
            types = {name: str(getattr(self.types.attention, name)) for name in names}
            kind = types["output"]
            types["output"] = str(self.result(kind))
        attention = ConvAttention(
            config.heads,
            heights,
            kernel_quantizer=self.weights("attention") if heights else None,
            types=types,
            **config.softmax.model_dump(),
            name=f"{prefix}attention",
        )
        return self.narrowed(attention(tensors), kind, attention.name)

    def tanh(self, x: tf.Tensor, prefix: str, name: str) -> tf.Tensor:
        argument, entries = self.text(f"{name}_input"), self.text("tanh_output")
        x = self.narrowed(x, argument, f"{prefix}{name}_input")
        x = DynamicTanh(argument, entries, name=prefix + name)(x)
        return self.narrowed(x, entries, prefix + name)


class LearnedBuilder(Builder):
    """For training: weights with widths of their own, where the YAML says so, learn them.

    Trained weights, set to what they are rounded to (`snap_weights`), are those of `Builder`, whose
    quantizers are of the types that hold them all.
    """

    def weights(self, layer: str) -> Any:
        if self.types is None or self.config.widths.weights == "tensor":
            return super().weights(layer)
        kind = self.types.weight(layer)
        return LearnedBits(kind.width, kind.int_bits - 1)


def build_model(
    config: ModelConfig, quantized: bool, features: int = 3, builder: type[Builder] = Builder
) -> tf.keras.Model:
    """The Keras model: (batch, N, features) on the input grid to (batch, classes) logits.

    The float and the quantized model have the same weights in the same order: `set_weights` of one
    takes `get_weights` of the other. With widths of elements the quantized one has these as well.
    builder: a subclass changes layers, for studies and for the training of widths.

    Raises `UserError` when `quantized` and no types are given, or when a sum could exceed the 24
    bits that float32 holds.
    """
    if not isinstance(config, ModelConfig):
        raise UserError(
            f"build_model: config: give salt_hls.ModelConfig.load(...), got {type(config).__name__}"
        )
    if quantized and config.types is None:
        raise UserError("types: the key is missing; a quantized model declares every type")
    inputs = tf.keras.Input((config.particles, features), name="particles")
    make = builder(config, config.types if quantized else None, inputs)
    grid = replace(config.inputs.container, rounding="RND", overflow="SAT")
    x = make.narrowed(inputs, str(grid), "inputs")
    x = make.dense("", "embed", config.width)(x)
    x = make.activation("relu", make.text("embed"), "embed_relu")(x)
    for block in range(1, config.blocks + 1):
        x = make.block(x, f"block{block}_")
    x = tf.keras.layers.GlobalMaxPooling1D(name="pool")(x)
    x = make.narrowed(x, make.text("tanh_output"), "pool")
    if config.head == "mlp":
        x = make.dense("", "head", config.width)(x)
        x = make.activation("relu", make.text("head"), "head_relu")(x)
    x = make.dense("", "classes", config.classes)(x)
    outputs = FixedActivation("linear", make.text("output"), name="logits")(x)
    return tf.keras.Model(inputs, outputs, name="tagger")


def snap_weights(model: tf.keras.Model) -> None:
    """Sets every quantized weight to the grid value the forward pass uses; outputs stay."""
    for layer in model.layers:
        snap_layer(layer)


def snap_layer(layer: tf.keras.layers.Layer) -> None:
    """Sets a layer's quantized weights to their grid values."""
    for name in ("kernel", "bias"):
        weight, quantizer = getattr(layer, name, None), quantizer_of(layer, name)
        if quantizer is not None and weight is not None:
            # Twice: x + (q - x), as QKeras computes, may be rounded off the grid the first time.
            once = quantizer(tf.convert_to_tensor(weight))
            twice = quantizer(once)
            # Some have other values then: binary(use_01=1) of 0 is 1.
            if np.allclose(once, twice):
                weight.assign(twice)


class _LoadableQActivation(QActivation):  # type: ignore[misc]
    """QKeras' own does not read the quantizer in the configuration that it writes."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QActivation:
        return QActivation(**{**config, "activation": get_quantizer(config["activation"])})


def load_keras_model(path: Path) -> tf.keras.Model:
    """A saved Keras model.

    The weights are as the file has them. Raises `UserError` when the file is no Keras model of one
    (features,) or (particles, features) input, or holds Python code, which is not run.
    """
    from qkeras.utils import _add_supported_quantized_objects

    layers = check_no_code(path)
    objects: dict[str, Any] = {name: keras_class(name) for name in KERAS_CLASSES}
    _add_supported_quantized_objects(objects)
    objects |= {"QActivation": _LoadableQActivation, "LearnedBits": LearnedBits}
    known = {*dir(tf.keras.layers), *dir(tf.keras), *objects, "Functional"}
    for name, kind in layers.items():
        if kind not in known:
            raise UserError(f"{path}: layer {name}: {kind} is no layer of Keras, QKeras or SAL-T")
    try:
        model = tf.keras.models.load_model(path, custom_objects=objects, compile=False)
    except UserError:
        raise
    except Exception as error:  # Keras raises whatever the file's content provokes
        # Keras puts the configuration of the layer in front of what is wrong with it.
        reason = " ".join(str(error).partition("Exception encountered:")[2].split()) or str(error)
        reason = " ".join(reason.split())[:160]
        raise UserError(
            f"{path}: not a Keras model that can be loaded here ({reason}); one of an older Keras "
            "can be, saved as .h5"
        ) from None
    shapes = [tuple(tensor.shape) for tensor in getattr(model, "inputs", None) or []]
    if len(shapes) != 1 or len(shapes[0]) not in (2, 3) or None in shapes[0][1:]:
        got = ", ".join(str(shape[1:]) for shape in shapes) or "none"
        raise UserError(
            f"{path}: the model needs one input (particles, features) or (features,) of numbers, "
            f"got {got}"
        )
    require_finite(model, path)
    return model


class _Given(dict[str, Any]):
    """What the user gave to `import_sal_t4hep`."""

    def __missing__(self, key: str) -> Any:
        known = ", ".join(sorted(self)) or "nothing"
        raise UserError(f"import_sal_t4hep: {key} is missing; given are {known}")


def import_sal_t4hep(
    weights: Mapping[str, NDArray[np.float32]], config: Mapping[str, Any]
) -> tf.keras.Model:
    """Our float model with the weights of a published SAL-T classifier.

    weights: arrays `embed_kernel`, `wq`, `cluster_E_W` or `proj_E`, `conv0_kernel`, ... (kernels
    are (in, out), head h owns columns h*D ... of wq, wk, wv). config: N, feature_dim, d_model,
    d_ff, num_heads, proj_dim, cluster_E, cluster_F, share_EF, convolution, filter_heights,
    output_dim, arch ("linformer" or "transformer"). The filters are averaged into one kernel and
    their biases, which cancel in the softmax, dropped; what 1/sqrt(D) is more than a shift goes
    into the query matrix. The model ends at the logits. Raises `UserError` for what is missing or
    has the wrong shape.
    """
    weights = _Given({name.removeprefix("w_"): array for name, array in weights.items()})
    config = _Given(config)
    full = str(config["arch"]) == "transformer"
    heights = tuple(int(h) for h in np.atleast_1d(config["filter_heights"]))
    heads, width, particles = (int(config[k]) for k in ("num_heads", "d_model", "N"))
    unit = Feature(scale=1.0, type=FixedType(24, 12))
    try:
        ours = ModelConfig(
            particles=particles,
            partitions=particles if full else int(config["proj_dim"]),
            width=width,
            heads=heads,
            feed_forward=int(config["d_ff"]),
            classes=int(config["output_dim"]),
            attention="full" if full else "projected",
            keys="partitioned" if config["cluster_E"] else "dense",
            values="partitioned" if config["cluster_F"] else "dense",
            share_projections=bool(config["share_EF"]) and not full,
            filter_heights=heights if config["convolution"] and not full else (),
            inputs=Inputs(pt=unit, deta=unit, dphi=unit),
        )
    except ValidationError as error:
        raise UserError(f"import_sal_t4hep: {first_fault(error)}") from None
    model = build_model(ours, quantized=False, features=int(config["feature_dim"]))
    depth = width // heads
    per_head = {
        what: np.asarray(weights[w]).reshape(width, heads, depth).transpose(1, 0, 2)
        for what, w in (("key", "wk"), ("value", "wv"))
    }
    values: dict[str, list[NDArray[Any]]] = {
        "embed": [weights["embed_kernel"], weights["embed_bias"]],
        "block1_query": [np.asarray(weights["wq"]) * (2.0 ** scale_shift(depth) / depth**0.5)],
        "block1_output": [weights["out_kernel"], weights["out_bias"]],
        "block1_tanh1": [weights["dyt1_alpha"], weights["dyt1_beta"]],
        "block1_tanh2": [weights["dyt2_alpha"], weights["dyt2_beta"]],
        "block1_ff1": [weights["ffn1_kernel"], weights["ffn1_bias"]],
        "block1_ff2": [weights["ffn2_kernel"], weights["ffn2_bias"]],
        "head": [weights["head_kernel"], weights["head_bias"]],
        "classes": [weights["cls_kernel"], weights["cls_bias"]],
    }
    if full:
        values["block1_key"] = [weights["wk"]]
        values["block1_value"] = [weights["wv"]]
    else:
        for what, letter, mode in (("key", "E", ours.keys), ("value", "F", ours.values)):
            source = f"cluster_{letter}_W" if mode == "partitioned" else f"proj_{letter}"
            values[f"block1_{what}"] = [per_head[what]]
            if not (what == "value" and ours.share_projections):
                values[f"block1_{what}_projection"] = [weights[source]]
    if ours.filter_heights:
        values["block1_attention"] = [_folded(weights, heights, ours.partitions)]
    for name, arrays in values.items():
        layer = model.get_layer(name)
        shapes = [tuple(w.shape) for w in layer.weights]
        arrays = [np.asarray(a, np.float32).reshape(np.shape(a)) for a in arrays]
        if [a.shape for a in arrays] != shapes:
            raise UserError(
                f"import_sal_t4hep: weights of {name} must have shapes {shapes}, "
                f"got {[a.shape for a in arrays]}"
            )
        layer.set_weights(arrays)
    return model


def _folded(
    weights: Mapping[str, NDArray[np.float32]], heights: tuple[int, ...], partitions: int
) -> NDArray[np.float64]:
    """The average of the filters as one kernel of the greatest height, (height, p)."""
    kernel = np.zeros((max(heights), partitions))
    for i, height in enumerate(heights):
        top = padding(max(heights))[0] - padding(height)[0]
        filter_ = np.asarray(weights[f"conv{i}_kernel"], np.float64).reshape(height, partitions)
        kernel[top : top + height] += filter_ / len(heights)
    return kernel
