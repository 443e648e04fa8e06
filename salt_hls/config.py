"""Configuration files. Unknown and missing keys are errors of one line."""

from __future__ import annotations

import math
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from salt_hls.errors import UserError
from salt_hls.fixed import FLOAT32_BITS, FixedType, check_table
from salt_hls.system.paths import KERAS_MODELS
from salt_hls.system.wording import option

MODELS = KERAS_MODELS

Order = Literal["kt", "pt", "delta_r", "lund", "shuffled", "given"]


def _parse_type(value: Any) -> Any:
    if isinstance(value, FixedType):
        return value
    try:
        declared = FixedType.parse(str(value))
    except UserError as error:
        raise ValueError(str(error)) from None
    if declared.width - declared.signed > FLOAT32_BITS:
        raise ValueError(f"more than {FLOAT32_BITS} bits, which float32 cannot hold in training")
    return declared


Type = Annotated[FixedType, BeforeValidator(_parse_type), PlainSerializer(str)]
"""An `ap_fixed<...>` text in YAML, a `FixedType` in Python."""


def _parse_weight_type(value: Any) -> Any:
    declared = _parse_type(value)
    # Without modes a type means TRN and WRAP; of a weight nothing is said then.
    if "," in str(value).partition(",")[2]:
        modes = (declared.rounding, declared.overflow)
        if modes != ("RND_CONV", "SAT"):
            raise ValueError(
                f"QKeras rounds weights half to even and saturates: {modes[0]} and {modes[1]} "
                "cannot be had; give RND_CONV,SAT or no modes"
            )
    if not (declared.signed and declared.width >= 2 and 1 <= declared.int_bits <= declared.width):
        raise ValueError(
            "a weight of QKeras is ap_fixed<W,I> with W at least 2 and I = 1 ... W, signs included"
        )
    return declared


WeightType = Annotated[FixedType, BeforeValidator(_parse_weight_type), PlainSerializer(str)]
"""The type of a weight, one that QKeras' `quantized_bits` has: signed, half to even, saturating."""


def _table_type(argument: FixedType, name: str = "") -> FixedType:
    try:
        check_table(argument, name)
    except UserError as error:
        raise ValueError(str(error).removeprefix(": ")) from None
    return argument


TableType = Annotated[Type, AfterValidator(_table_type)]
"""The type of a value that is looked up in a table."""

MAX_COUNT = 4096
"""Most particles, partitions, columns, ..."""

Count = Annotated[int, Field(gt=0, le=MAX_COUNT)]

PART = "xcvu13p-flga2577-2-e"
CLOCK_NS = 2.5
"""What firmware is for, unless something else is said."""

CLOCKS_NS = (0.1, 1000.0)
"""Bounds of a clock period."""


class Strict(BaseModel):
    """Base of every configuration: immutable, and nothing unknown passes, nor NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Feature(Strict):
    """How a trigger delivers one particle feature: `type(curve(value) * scale)`.

    curve: "linear", or "log2" for log2(1 + value), one small table in front of the tagger. pT spans
    three decades: on a linear grid its weights would need more than 6 bits. scale: units of the
    grid for each unit of the curve (GeV, radian).
    """

    curve: Literal["linear", "log2"] = "linear"
    scale: float = Field(ge=1e-6, le=1e6)
    type: Type


class Inputs(Strict):
    """The input tensor (N, 3): which particles, in which order, on which grid.

    The N particles of highest pT are taken, then ordered (descending) by kT = pT * deltaR, pT or
    deltaR, all computed on physical values. For studies: "lund", the clustering sequence
    (`jets/declustering.py`), and "shuffled", one arbitrary order for each jet.
    "given" takes the first N as they come: for point clouds, whose features may be called x, y, z.
    """

    order: Order = "kt"
    pt: Feature = Field(validation_alias=AliasChoices("pt", "x"))
    deta: Feature = Field(validation_alias=AliasChoices("deta", "y"))
    dphi: Feature = Field(validation_alias=AliasChoices("dphi", "z"))

    @property
    def features(self) -> tuple[Feature, Feature, Feature]:
        """In the order of the tensor's last axis."""
        return self.pt, self.deta, self.dphi

    @property
    def container(self) -> FixedType:
        """The narrowest one type that holds the grids of all features."""
        types = [f.type for f in self.features]
        signed = any(t.signed for t in types)
        int_bits = max(t.int_bits + (signed and not t.signed) for t in types)
        return FixedType(int_bits + max(t.frac_bits for t in types), int_bits, signed)


class Grid(Strict):
    """The input tensor of a saved model: one type for all of its values."""

    type: Type

    @property
    def container(self) -> FixedType:
        """The grid, without the rounding that its values have had."""
        return self.type.exact()


class AttentionTypes(Strict):
    """Types inside conv-attention, in the order in which values pass them.

    conv: after a convolution. attention: normalized weights; context: what is normalized instead.
    """

    logits: Type
    conv: TableType | None = None
    exp: Type
    sum: TableType
    reciprocal: Type
    attention: Type | None = None
    context: Type | None = None
    output: Type


class Types(Strict):
    """The declared type of every tensor of the quantized model.

    weights: by layer name without its block ("embed", "key_projection", ...), else "default".
    Weights round half to even and saturate (QKeras `quantized_bits`, alpha = 1). Those that may be
    left out belong to tensors that not every model has; there they mean nothing.
    """

    weights: dict[str, WeightType]
    biases: WeightType
    embed: Type
    query: Type
    query_filter: Type | None = None
    key_projection: Type
    key: Type
    key_filter: Type | None = None
    value_projection: Type
    value: Type
    attention: AttentionTypes
    tanh1_input: TableType
    tanh2_input: TableType | None = None
    tanh_output: Type
    feed_forward: Type
    head: Type | None = None
    output: Type

    def weight(self, layer: str) -> FixedType:
        """Weight type of a layer."""
        return self.weights.get(layer, self.weights["default"])

    @property
    def elements(self) -> dict[str, FixedType]:
        """Types of tensors whose elements may have widths of their own, by key."""
        inside = ("weights", "biases", "attention", "output")
        found = {key: kind for key, kind in self if key not in inside and kind is not None}
        return {**found, "attention.output": self.attention.output}

    @model_validator(mode="after")
    def _known_weights(self) -> Types:
        known = {
            "default", "embed", "query", "query_filter", "key_projection", "key", "key_filter",
            "value_projection", "value", "attention", "output", "ff1", "ff2", "head", "classes",
        }  # fmt: skip
        unknown = sorted(set(self.weights) - known)
        if unknown:
            raise ValueError(f"weights: unknown layer {unknown[0]!r}; known: {sorted(known)}")
        if "default" not in self.weights:
            raise ValueError("weights: the key 'default' is missing")
        return self


class Widths(Strict):
    """What has a width of its own, inside the declared type, which training then learns.

    weights: every "weight", or the "tensor" as a whole. activations: every "element" of the inputs
    and of the tensors that `types` declares, particle by column, or the "tensor". Those inside
    attention, biases and the logits keep their declared types. What has no bits left is 0 and
    costs nothing; `training.learned` says how far widths are to fall. Elements round half up and
    saturate (RND, SAT), so their declared types must.
    """

    weights: Literal["tensor", "weight"] = "tensor"
    activations: Literal["tensor", "element"] = "tensor"

    @property
    def learned(self) -> bool:
        """Whether anything has a width of its own."""
        return self != Widths()


class Phase(Strict):
    """Part of a training: a batch size for at most so many epochs, until it stops improving."""

    batch: int = Field(gt=0, le=2**24)
    epochs: Count
    patience: Count
    learning_rate: float = Field(ge=1e-9, le=10)


class LearnedPhase(Strict):
    """Part of the training of widths: a batch size for so many epochs."""

    batch: int = Field(gt=0, le=2**24)
    epochs: Count


class Learned(Strict):
    """Training of weights and widths together, from the float weights to a cost.

    target_lut: the predicted LUTs (`training/cost.py`) that the model may have in the end. The
    training starts at the declared types; the LUTs it is held to fall by the same factor in every
    step, to the target after the first three quarters of all steps. Below 1 % an epoch or so is
    slow enough; much faster, and attention collapses. learning_rate: in the first step; it falls
    as a cosine, to a hundredth.
    """

    target_lut: int = Field(gt=0)
    phases: tuple[LearnedPhase, ...] = Field(min_length=1)
    learning_rate: float = Field(default=1e-3, ge=1e-9, le=10)


class Training(Strict):
    """Float training, then quantization-aware training of the same weights.

    The latter is in `quantized_phases`, or, of a model that learns `widths`, `learned`.
    """

    seed: int = Field(default=1, ge=0, lt=2**32)
    float_phases: tuple[Phase, ...] = Field(min_length=1)
    quantized_phases: tuple[Phase, ...] = ()
    learned: Learned | None = None

    @model_validator(mode="after")
    def _one_way_to_quantize(self) -> Training:
        if self.learned is None and not self.quantized_phases:
            raise ValueError("quantized_phases: the key is missing; give at least one phase")
        if self.learned is not None and self.quantized_phases:
            raise ValueError(
                "quantized_phases: learned trains the widths instead; leave quantized_phases out"
            )
        return self


def _part(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9._-]*", name):
        raise ValueError(
            "must be a device's name of letters, digits and hyphens, such as xcvu13p-flga2577-2-e"
        )
    return name


class Firmware(Strict):
    """Target of the HLS project.

    io_type: "io_parallel", a jet a clock, or "io_stream", `particles_per_clock` particles a clock:
    a jet every ceil(particles / particles_per_clock) clocks.
    """

    part: Annotated[str, AfterValidator(_part)] = PART
    clock_ns: float = Field(default=CLOCK_NS, ge=CLOCKS_NS[0], le=CLOCKS_NS[1])
    io_type: Literal["io_parallel", "io_stream"] = "io_parallel"
    particles_per_clock: Count = 1

    @model_validator(mode="after")
    def _lanes_stream(self) -> Firmware:
        if self.io_type == "io_parallel" and self.particles_per_clock > 1:
            raise ValueError(
                "particles_per_clock: io_parallel takes all particles in one clock; "
                "leave it out or give io_type: io_stream"
            )
        return self


class Softmax(Strict):
    """How the firmware computes the softmax. In float all of these are the same function.

    stable: the row's largest logit is subtracted before exp. Without that there is no maximum to
    find, and exp's type bounds it: logits beyond its range count like those at its ends.
    normalize: what the sum of exponentials divides, the attention "weights" or the "context".
    scale: 1/sqrt(depth) as a power of two on the "logits", or exactly in exp's "table".
    """

    stable: bool = True
    normalize: Literal["weights", "context"] = "weights"
    scale: Literal["logits", "table"] = "logits"


class Range(Strict):
    """Whole numbers: `{from: 8, to: 32, step: 8}`, both ends included."""

    first: int = Field(validation_alias="from")
    last: int = Field(validation_alias="to")
    step: int = Field(default=1, gt=0)

    @model_validator(mode="after")
    def _not_empty(self) -> Range:
        if self.last < self.first:
            raise ValueError(f"to: must be at least from ({self.first}), got {self.last}")
        return self


class Explore(Strict):
    """What `salt-hls explore` varies, and what it minimizes beside the loss of accuracy.

    vary: values by key of the YAML (`width`, `firmware.particles_per_clock`); `weights` and
    `activations` are the bits of all of these. training_jets: of the short training of a point.
    given_up: a point that is so much less accurate than the best is given up after its float
    training.
    """

    cost: Literal["lut", "latency_ns"] = "lut"
    training_jets: int = Field(default=60_000, gt=0)
    given_up: float = Field(default=0.05, gt=0, le=1)
    vary: dict[str, Range | Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(min_length=1)

    @property
    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The values of every key."""
        return {
            key: tuple(range(given.first, given.last + 1, given.step))
            if isinstance(given, Range)
            else given
            for key, given in self.vary.items()
        }


class ModelConfig(Strict):
    """One tagger: its architecture, input grid, types, training and firmware target.

    SAL-T: attention "projected", keys and values "partitioned", filter_heights [1, 3, 5].
    Linformer: keys and values "dense", no filters. Full attention: attention "full", no filters.

    convolution: by one "kernel" over the logits of all heads, or by a filter for each head, of the
    queries along the particles and of the keys along the partitions: a kernel of rank one
    ("separable"), or of the "queries" alone. block: attention, then feed-forward, each with a
    residual and a tanh, or both from the same input, with one residual and one tanh ("parallel").
    head: "mlp", with one hidden layer, or "linear".
    """

    particles: Count
    partitions: Count
    width: Count = Field(default=16, description="d_model")
    heads: Count = 4
    feed_forward: Count = 16
    blocks: Count = 1
    classes: Count = 5
    attention: Literal["projected", "full"] = "projected"
    keys: Literal["partitioned", "dense"] = "partitioned"
    values: Literal["partitioned", "dense"] = "partitioned"
    share_projections: bool = False
    project_first: bool = True
    filter_heights: tuple[Count, ...] = (1, 3, 5)
    convolution: Literal["kernel", "separable", "queries"] = "kernel"
    softmax: Softmax = Softmax()
    block: Literal["sequential", "parallel"] = "sequential"
    head: Literal["mlp", "linear"] = "mlp"
    inputs: Inputs
    types: Types | None = None
    widths: Widths = Widths()
    training: Training | None = None
    firmware: Firmware = Firmware()
    explore: Explore | None = Field(default=None, exclude=True)  # it changes no result

    @staticmethod
    def load(model: str | Path, **changes: Any) -> ModelConfig:
        """The configuration of a shipped model's name or of a YAML's path, with `changes` of keys.

        Raises `UserError` with file, key, rule and value got.
        """
        path = find_model(str(model))
        if path.suffix not in (".yaml", ".yml"):
            raise UserError(f"{path}: a saved Keras model has no configuration; give a YAML")
        try:
            return ModelConfig.model_validate({**read_yaml(path), **changes})
        except ValidationError as error:
            raise UserError(f"{path}: {first_fault(error)}") from None

    @model_validator(mode="after")
    def _consistent(self) -> ModelConfig:
        if self.partitions > self.particles:
            raise ValueError(
                f"partitions: must be at most particles ({self.particles}), got {self.partitions}"
            )
        if self.firmware.particles_per_clock > self.particles:
            raise ValueError(
                f"firmware.particles_per_clock: must be at most particles ({self.particles}), "
                f"got {self.firmware.particles_per_clock}"
            )
        if self.width % self.heads:
            raise ValueError(f"width: must be a multiple of heads ({self.heads}), got {self.width}")
        if self.attention == "full" and self.filter_heights:
            raise ValueError("filter_heights: full attention has no convolution; give []")
        if self.convolution != "kernel" and not self.filter_heights:
            raise ValueError(
                f"convolution: {self.convolution} needs filters; give filter_heights, or leave "
                "convolution out"
            )
        if self.share_projections and (self.keys != self.values or not self.project_first):
            raise ValueError(
                "share_projections: needs project_first: true and the same mode for keys and values"
            )
        return self

    @model_validator(mode="after")
    def _complete_types(self) -> ModelConfig:
        if self.types is None:
            return self
        attention, context = self.types.attention, self.softmax.normalize == "context"
        filters = f"convolution: {self.convolution}"
        for key, declared, needed_by in (
            ("attention.conv", attention.conv, bool(self.kernel_heights) and "a convolution"),
            (
                "attention.attention",
                attention.attention,
                not context and "softmax.normalize: weights",
            ),
            ("attention.context", attention.context, context and "softmax.normalize: context"),
            ("query_filter", self.types.query_filter, "query" in self.filtered and filters),
            ("key_filter", self.types.key_filter, "key" in self.filtered and filters),
            (
                "tanh2_input",
                self.types.tanh2_input,
                self.block == "sequential" and "block: sequential",
            ),
            ("head", self.types.head, self.head == "mlp" and "head: mlp"),
        ):
            if needed_by and declared is None:
                raise ValueError(f"types.{key}: the key is missing; {needed_by} needs it")
        if not self.kernel_heights:
            _table_type(attention.logits, f"types.attention.logits: {attention.logits}")
        return self

    @model_validator(mode="after")
    def _learnable(self) -> ModelConfig:
        if self.training is not None and self.widths.learned != bool(self.training.learned):
            if self.widths.learned:
                raise ValueError(
                    "training.learned: the key is missing; widths are learned toward its target_lut"
                )
            raise ValueError(
                "training.learned: no widths to learn; give widths: {weights: weight, "
                "activations: element}"
            )
        if self.types is not None and self.widths.activations == "element":
            for key, kind in self.types.elements.items():
                if (kind.rounding, kind.overflow) != ("RND", "SAT"):
                    raise ValueError(
                        f"types.{key}: widths.activations: element needs RND,SAT, got {kind}"
                    )
        return self

    @property
    def kernel_heights(self) -> tuple[int, ...]:
        """Heights of the filters that make the one kernel over the logits, if there is one."""
        return self.filter_heights if self.convolution == "kernel" else ()

    @property
    def filtered(self) -> tuple[str, ...]:
        """What has filters of its own, instead of the logits."""
        kinds = {"kernel": (), "separable": ("query", "key"), "queries": ("query",)}
        return kinds[self.convolution]

    @property
    def chunk(self) -> int:
        """Particles per partition, L = ceil(N / p)."""
        return math.ceil(self.particles / self.partitions)


class SavedModel(Strict):
    """What a saved Keras model does not say: the grid of its input, and the firmware's target."""

    inputs: Grid | Inputs
    firmware: Firmware = Firmware()


class _SavedGrid(SavedModel):
    inputs: Grid


class _SavedParticles(SavedModel):
    inputs: Inputs


def load_saved_model(path: Path) -> SavedModel:
    """The YAML beside a saved Keras model: `inputs` and `firmware`, of a full YAML only these.

    Raises `UserError` as `load_yaml` does.
    """
    content = read_yaml(path)
    if "particles" in content:
        config = load_yaml(path, ModelConfig)
        return SavedModel(inputs=config.inputs, firmware=config.firmware)
    inputs = content.get("inputs")
    of_one_type = isinstance(inputs, dict) and "type" in inputs
    return load_yaml(path, _SavedGrid if of_one_type else _SavedParticles)


class Cluster(Strict):
    """A batch system for jobs. workers: how many of its jobs are asked for, to run ours.

    jobqueue: the configuration of dask-jobqueue, of one system: {slurm: {cores: 4, ...}}.
    """

    workers: Count
    jobqueue: dict[str, dict[str, Any]]


ConfigT = TypeVar("ConfigT", bound=BaseModel)


class _DuplicateKey(yaml.YAMLError):
    pass


class _Loader(yaml.SafeLoader):
    """Refuses keys that are given twice, of which YAML would take the last."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise _DuplicateKey(f"the key {key!r} is there twice")
        return node


def load_yaml(path: Path, kind: type[ConfigT]) -> ConfigT:
    """Reads a configuration; every fault is a `UserError` with file, key, rule and value."""
    try:
        return kind.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path}: {first_fault(error, kind)}") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Keys and values of a YAML file; `UserError` when it holds none."""
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, _Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UserError(f"{path}: cannot be read ({reason})") from None
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        twice = f": {error}" if isinstance(error, _DuplicateKey) else ""
        tab = "; indent with spaces, not with tabs" if re.search(r"^ *\t", text, re.M) else ""
        raise UserError(f"{path}: not valid YAML{line}{twice}{tab}") from None
    if content is None:
        raise UserError(f"{path}: is empty; expected keys and values, as in a shipped YAML")
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected keys and values, got {type(content).__name__}")
    return content


def first_fault(error: ValidationError, kind: type[BaseModel] | None = None) -> str:
    """The first fault of a validation, in one line: key, rule, value got.

    Of a misspelt key, which is both missing and unknown, the latter; `kind` has the right ones.
    """
    faults = error.errors(include_url=False)
    fault = next((f for f in faults if f["type"] == "extra_forbidden"), faults[0])
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *_, name = map(str, fault["loc"])
        near = get_close_matches(name, _keys(kind) if kind else (), 1)
        fix = f"did you mean {near[0]!r}?" if near else "remove it or check its spelling"
        return f"unknown key {key!r}; {fix}"
    if fault["type"] == "missing":
        return f"the key {key!r} is missing"
    message = fault["msg"].removeprefix("Value error, ").replace("\n", " ")
    return f"{key}: {message}, got {str(fault['input'])[:60]!r}" if key else message


def _keys(kind: type[BaseModel]) -> set[str]:
    """Every key of a configuration and of those inside it."""
    schema = kind.model_json_schema()
    records = (schema, *schema.get("$defs", {}).values())
    return {key for record in records for key in record.get("properties", ())}


MODEL_FILES = (".yaml", ".yml", ".keras", ".h5")


def find_model(name: str) -> Path:
    """The YAML of a shipped model's name, or a path to a user's own YAML or saved Keras model.

    Raises `UserError` for anything else.
    """
    path, given = Path(name), option("model", name)
    if path.suffix in MODEL_FILES:
        if not path.is_file():
            raise UserError(f"{given}: {_not_there(path)}")
        config = path.with_name(f"{path.name.removesuffix('.weights.h5')}.yaml")
        if path.name.endswith(".weights.h5") and config.is_file():
            raise UserError(f"{given}: holds weights alone; give {config}")
        # Folders and C++ get the model's name.
        if not (re.match(r"\w", path.stem) and path.stem.isprintable() and len(path.stem) <= 100):
            raise UserError(
                f"{given}: the file's name must begin with a letter or digit and have at "
                "most 100 characters, none of control; rename it"
            )
        return path
    known = sorted(p.stem for p in MODELS.glob("*.yaml"))
    if name in known:
        return MODELS / f"{name}.yaml"
    if path.is_dir():
        raise UserError(f"{given}: {_not_there(path)}")
    beside = [str(path) + suffix for suffix in MODEL_FILES if Path(str(path) + suffix).is_file()]
    near = [*beside, *get_close_matches(name, known, 1)]
    raise UserError(
        f"{given}: not one of the shipped models ({', '.join(known)}) and not a path to a file "
        f"ending in {', '.join(MODEL_FILES)}{f'; did you mean {near[0]}?' if near else ''}"
    )


def _not_there(path: Path) -> str:
    """Why there is no model file at `path`, and what may have been meant."""
    if path.is_dir():
        return "is a folder; give the YAML or the saved Keras model in it"
    if not path.parent.is_dir():
        return f"no such file, and no folder {path.parent} in {Path.cwd()}"
    there = [p.name for p in path.parent.iterdir() if p.suffix in MODEL_FILES]
    near = get_close_matches(path.name, there, 1)
    return f"no such file in {path.parent.resolve()}" + (
        f"; did you mean {path.with_name(near[0])}?" if near else ""
    )
