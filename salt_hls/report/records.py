"""report.json: what was checked, measured and judged of one firmware, as typed records.

A value not known is null, never 0. A figure that varies is a range `[min, max]`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    NonNegativeInt,
    SerializerFunctionWrapHandler,
    ValidationError,
    computed_field,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from salt_hls.config import first_fault
from salt_hls.errors import UserError
from salt_hls.system.store import replacing
from salt_hls.system.wording import command

Stage = Literal["estimate", "rtl-synth", "csynth", "vsynth", "route"]
Kind = Literal[
    "csynth",
    "csynth_summary",
    "utilization",
    "timing",
    "export",
    "cosim",
    "cosim_lat",
    "cosim_transaction",
    "csim",
]

# Clock cycles and nanoseconds: one value, a range [min, max] (an end may be unknown), or unknown.
Cycles = NonNegativeInt | tuple[NonNegativeInt | None, NonNegativeInt | None] | None
Nanoseconds = float | tuple[float | None, float | None] | None

RESOURCES = ("lut", "ff", "dsp", "bram18", "uram")

LEVEL_NS, REGISTER_NS = 0.35, 0.2
"""The rule of thumb of reports before schema 3, which know no delays: REGISTER_NS + levels *
LEVEL_NS. It is too short for adders: docs/hardware.md."""


class Strict(BaseModel):
    """Base of every record: unknown keys, NaN and infinities are errors."""

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False, populate_by_name=True, use_attribute_docstrings=True
    )


class Resources(Strict):
    """Counts of FPGA primitives; `bram18` counts 18-kbit halves (a 36-kbit tile is two)."""

    lut: NonNegativeInt | None = None
    ff: NonNegativeInt | None = None
    dsp: NonNegativeInt | None = None
    bram18: NonNegativeInt | None = None
    uram: NonNegativeInt | None = None


class Module(Resources):
    """Figures of one part of a design: a pipeline stage, or an instance in an HLS report.

    `carry` counts CARRY8 primitives, `levels` the LUTs and carries on the longest path, whose
    delay by the table of delays is `delay_ns`. `srl` of the `lut` are shift registers.
    """

    name: str
    start_cycle: NonNegativeInt | None = None
    """Clock cycles after the first input; null when parts overlap in ways the tool does not say."""
    latency_cycles: Cycles = None
    ii_cycles: Cycles = None
    srl: NonNegativeInt | None = None
    carry: NonNegativeInt | None = None
    levels: NonNegativeInt | None = None
    delay_ns: float | None = None


class Mismatch(Strict):
    """One value that differs: `index` is its place in the layer's output.

    expected, got: `None` where they are no finite numbers.
    """

    event: NonNegativeInt
    index: NonNegativeInt | list[NonNegativeInt]
    expected: float | None
    got: float | None


class BitAccuracy(Strict):
    """One layer compared between two implementations; `max_lsb` in steps of the layer's type."""

    pair: str
    layer: str
    events: NonNegativeInt
    values: NonNegativeInt
    mismatches: NonNegativeInt
    max_lsb: float
    examples: list[Mismatch] = []


class Scores(Strict):
    """One score for the float model, the quantized model and the firmware in C-simulation."""

    float_: float | None = Field(default=None, alias="float")
    quantized: float | None = None
    csim: float | None = None


class RocCurve(Strict):
    """One class against the rest: efficiencies in [0, 1], equal lengths."""

    label: str
    model: Literal["float", "quantized", "csim"]
    signal: list[float]
    background: list[float]

    @model_validator(mode="after")
    def _equal_lengths(self) -> RocCurve:
        if len(self.signal) != len(self.background):
            raise ValueError("signal and background must have equal lengths")
        return self


class Physics(Strict):
    """Tagging performance on `events` jets of `dataset`; accuracy and AUC in [0, 1]."""

    dataset: str
    events: NonNegativeInt
    accuracy: Scores
    auc: Scores
    background_rejection: dict[str, Scores] = {}
    """1 / background efficiency, by working point, e.g. `top at 50 %`."""
    roc: list[RocCurve] = []


class SynthesisRecord(Resources):
    """Figures from one source: one vendor report file, or one run of an open tool.

    The first fields are the stable interface and always written; those after `latency_ns` are
    written when the source gives them. `stage` is the step that made the figures: HLS
    simulations count as "csynth" (their RTL), and "route" is the implementation run, of which
    `design_state` says how far it got ("Fully Placed", "Routed").
    """

    source: str
    stage: Stage
    latency_cycles: Cycles = None
    ii_cycles: Cycles = None
    clock_ns: float | None = None
    """Target (constrained) clock period."""
    latency_ns: Nanoseconds = None
    """latency_cycles x `period_ns`; filled in when not given."""

    kind: Kind | None = None
    tool: str | None = None
    version: str | None = None
    top: str | None = None
    part: str | None = None
    part_of: str | None = None
    """Top of the design that these figures are only a piece of; null for a whole design."""
    design_state: str | None = None
    clock_estimated_ns: float | None = None
    """Period the tool says the logic needs (for timing summaries: period - worst slack)."""
    clock_by_delays_ns: float | None = None
    """Period the slowest stage needs by the table of delays, never a tool's timing. Unknown where
    products are in DSP slices, which have no delay there."""
    clock_by_levels_ns: float | None = None
    """Of reports before schema 3: period by the rule of thumb for the `levels`."""
    clock_uncertainty_ns: float | None = None
    slack_ns: float | None = None
    """Of the HLS summary: target - uncertainty - estimate."""
    absolute_latency: list[str] | None = None
    """[min, max] as printed by the tool."""
    pipeline_type: str | None = None
    pipeline_ii: NonNegativeInt | None = None
    pipeline_depth: NonNegativeInt | None = None
    available: Resources | None = None
    slr_available: Resources | None = None
    slr_percent: Resources | None = None
    bram_tile: float | None = None
    ramb36: NonNegativeInt | None = None
    ramb18: NonNegativeInt | None = None
    black_boxes: NonNegativeInt | None = None
    """Parts that the counts leave out."""
    clock: str | None = None
    wns_ns: float | None = None
    tns_ns: float | None = None
    tns_failing_endpoints: NonNegativeInt | None = None
    tns_total_endpoints: NonNegativeInt | None = None
    whs_ns: float | None = None
    constraints_met: bool | None = None
    rtl: str | None = None
    status: str | None = None
    errors: NonNegativeInt | None = None
    message: str | None = None
    latency_min_avg_max: list[NonNegativeInt | None] | None = None
    interval_min_avg_max: list[NonNegativeInt | None] | None = None
    """As the simulator prints it; 0 when only one transaction ran."""
    total_cycles: NonNegativeInt | None = None
    srl: NonNegativeInt | None = None
    """Of the `lut`, those that are shift registers; their bits are not in `ff`."""
    carry: NonNegativeInt | None = None
    levels: NonNegativeInt | None = None
    stage_budget_ns: float | None = None
    """Greatest delay that a pipeline stage may have for the target."""
    over_budget: list[str] = []
    """Names of the stages that have more; filled in."""
    modules: list[Module] = []
    notes: list[str] = []
    """What a reader of the figures must know, one sentence each."""

    @property
    def needed_ns(self) -> float | None:
        """The period the logic needs, as the tool says, else by its delays; None: not timed."""
        told = (self.clock_estimated_ns, self.clock_by_delays_ns, self.clock_by_levels_ns)
        return next((ns for ns in told if ns is not None), None)

    @property
    def timed_by(self) -> str:
        """What a period that no tool timed is estimated from."""
        if self.clock_by_delays_ns is None:
            return f"{self.levels} levels of logic"
        return f"the delays of {self.levels} levels of logic"

    @property
    def slow_stages(self) -> list[Module]:
        """Those over the stage budget, the slowest first."""
        budget = self.stage_budget_ns
        over = [m for m in self.modules if budget and m.delay_ns and m.delay_ns > budget + 1e-9]
        return sorted(over, key=lambda m: -(m.delay_ns or 0))

    @property
    def period_ns(self) -> float | None:
        """The clock period the design runs at: max(target, needed)."""
        known = [ns for ns in (self.clock_ns, self.needed_ns) if ns is not None]
        return max(known, default=None)

    @property
    def failed(self) -> bool:
        """Whether the source is a simulation that failed."""
        return (self.status or "").lower() == "fail"

    @model_validator(mode="after")
    def _fill(self) -> SynthesisRecord:
        self.over_budget = [module.name for module in self.slow_stages]
        untimed = self.clock_by_delays_ns is None and self.clock_by_levels_ns is None
        if untimed and self.levels is not None and not self.dsp:
            self.clock_by_levels_ns = round(REGISTER_NS + self.levels * LEVEL_NS, 3)
            self.latency_ns = None  # earlier versions wrote it for the target
        if self.latency_ns is None:
            self.latency_ns = latency_ns(self.latency_cycles, self.period_ns)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """That of the fields: pydantic sees only that the serializer gives a dictionary."""
        model: Any = core
        while model["type"] != "model":  # inside of its validators
            model = model["schema"]
        return handler({k: v for k, v in model.items() if k != "serialization"})

    @model_serializer(mode="wrap")
    def _only_what_is_known(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data: dict[str, Any] = dump(self)
        stable = {key: data.pop(key) for key in STABLE if key in data}
        return stable | {k: v for k, v in data.items() if v not in (None, [])}


STABLE = ("source", "stage", *RESOURCES, "latency_cycles", "ii_cycles", "clock_ns", "latency_ns")


def latency_ns(cycles: Cycles, period_ns: float | None) -> Nanoseconds:
    """`cycles` x `period_ns`, to the picosecond; unknown stays unknown, a range a range."""
    if cycles is None or period_ns is None:
        return None
    if isinstance(cycles, int):
        return round(cycles * period_ns, 3)
    low, high = (None if c is None else round(c * period_ns, 3) for c in cycles)
    return low, high


Verdict = Literal["pass", "fail", "unproven"]


class BudgetCheck(Strict):
    """One limit of a budget against the value used.

    `note` says why it fails, what is missing to prove it, or what to mind; `estimated` that the
    value, or the clock in it, comes from counting operations or levels of logic, not from a tool
    that timed or synthesized them.
    """

    name: str
    limit: int | float | str
    value: int | float | str | tuple[int | float | None, int | float | None] | None
    verdict: Verdict
    estimated: bool = False
    source: str | None = None
    note: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """Whether the limit is proven to be kept."""
        return self.verdict == "pass"

    @model_validator(mode="before")
    @classmethod
    def _read_passed(cls, data: Any) -> Any:
        """`passed` is written too; alone, as by earlier versions, it is the verdict."""
        if not isinstance(data, dict) or "passed" not in data:
            return data
        passed = data["passed"]
        rest = {key: value for key, value in data.items() if key != "passed"}
        return {"verdict": "pass" if passed else "fail"} | rest


class BudgetVerdict(Strict):
    """A budget applied to a report: `source` names the stages and files the values are from.

    `passed`: every limit is proven to be kept.
    """

    name: str
    source: str
    passed: bool
    checks: list[BudgetCheck]

    @property
    def verdict(self) -> Verdict:
        """One limit that fails fails all; else one that is unproven."""
        if self.of("fail"):
            return "fail"
        return "pass" if self.passed else "unproven"

    def of(self, verdict: Verdict) -> list[BudgetCheck]:
        """The checks with this verdict."""
        return [check for check in self.checks if check.verdict == verdict]


SCHEMA: Literal[3] = 3
"""Version of report.json. 2 has `verdict` and `bit_exact`, 3 delays and shift registers; earlier
ones are read."""


class Report(Strict):
    """The content of report.json.

    inputs_sha256: of the checked events. physics: `None` where the inputs are no labelled jets.
    """

    schema_version: Literal[3] = Field(default=SCHEMA, alias="schema")
    model: str
    backend: str | None = None
    io_type: str | None = None
    part: str | None = None
    clock_ns: float | None = None
    n_particles: int | None = None
    n_partitions: int | None = None
    versions: dict[str, str] = {}
    inputs_sha256: str | None = None
    bit_accuracy: list[BitAccuracy] = []
    physics: Physics | None = None
    synthesis: list[SynthesisRecord] = []
    budget: BudgetVerdict | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """Of the budget as a whole; "unproven" also where no figure is known."""
        return "unproven" if self.budget is None else self.budget.verdict

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bit_exact(self) -> bool | None:
        """Whether every compared value is the same; null where none was compared."""
        if not self.bit_accuracy:
            return None
        return not any(record.mismatches for record in self.bit_accuracy)

    @model_validator(mode="before")
    @classmethod
    def _upgrade(cls, data: Any) -> Any:
        """What is computed is not read, and an earlier version becomes the present one."""
        if not isinstance(data, dict):
            return data
        rest = {k: v for k, v in data.items() if k not in cls.model_computed_fields}
        return rest | {"schema": SCHEMA} if rest.get("schema") in (1, 2) else rest

    def to_json(self) -> str:
        """JSON text, the same bytes for the same content."""
        data = self.model_dump(mode="json", by_alias=True)
        data["versions"] = dict(sorted(data["versions"].items()))
        return json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def write(self, path: Path) -> None:
        """Write `path` whole or not at all."""
        write_text(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read and check `path`; a UserError names the file, the key and the fault."""
        try:
            text = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}); run {command('firmware')} of the "
                "model first"
            ) from None
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            fault = first_fault(error)
        if (found := _schema(text)) is not None and found > SCHEMA:
            raise UserError(
                f"{path}: schema {found} of a newer salt-hls; this one reads up to {SCHEMA}: "
                "update it, or build the model again"
            )
        raise UserError(f"{path}: {fault}; write it again with this version of salt-hls")


def json_schema() -> dict[str, Any]:
    """JSON Schema of report.json as it is written."""
    return Report.model_json_schema(mode="serialization")


def _schema(text: bytes) -> int | None:
    """The version that a report says it is of."""
    try:
        found = json.loads(text)["schema"]
    except (ValueError, TypeError, KeyError):
        return None
    return found if type(found) is int else None


def write_text(path: Path, text: str) -> None:
    """Write `text` through a temporary file, so that a reader never sees half of it."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
