"""`salt-hls diagnose`: signs of failure of a quantized tagger, on jets.

Accuracy when the particles come in another order, attention over partitions, and how the tensors
use their types and tables. The tensors are those of the golden arithmetic.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import BaseModel

from salt_hls.check.tally import HeadUse, TableUse, Tally, TensorUse
from salt_hls.config import Inputs, Order
from salt_hls.errors import UserError
from salt_hls.hls.convert import convert
from salt_hls.jets.dataset import FEATURES, JetSet
from salt_hls.jets.ordering import prepare
from salt_hls.jets.readers import DataSet, load_data
from salt_hls.models.tagger import SAMPLE, load_tagger, single_output
from salt_hls.report.folder import DIAGNOSIS, build_folder, changing
from salt_hls.system.progress import Progress
from salt_hls.system.store import replacing
from salt_hls.training.metrics import scores
from salt_hls.training.train import predict

BATCH = 500
"""Jets replayed at a time; bounds the memory."""

ORDERS: tuple[Order, ...] = ("kt", "pt", "delta_r", "shuffled")
CLIPPED = 0.01
"""Share of saturated values above which a tensor's range is too small."""

ONE_PARTITION = 0.95
"""Mean weight of one partition above which a head ignores the others."""

UNIFORM = 0.05
"""Mean spread of weights below which a head makes no difference between partitions."""

SIGMAS = 3
"""Statistical errors that a difference of accuracies must exceed to be one."""


class OrderAccuracy(BaseModel):
    """Accuracy with the particles in one order, and its difference to the configured order's.

    error: statistical error of the difference, from the jets that the two orders decide apart.
    """

    order: str
    accuracy: float
    difference: float
    error: float


class Diagnosis(BaseModel):
    """What the checks found; `warnings` has a line for each sign of failure."""

    model: str
    jets: int
    configured_order: str
    orders: list[OrderAccuracy]
    heads: list[HeadUse]
    tensors: list[TensorUse]
    tables: list[TableUse]
    warnings: list[str]


def diagnose(reference: str, build: Path, data: Path | None, progress: Progress) -> Diagnosis:
    """Diagnoses a model on the shipped jets, or on the test set of `data`.

    Writes `build`/<name>/diagnose/diagnose.json and diagnose.png. Raises `UserError` when the model
    cannot be built, or when its classes are not those of the jets.
    """
    progress("load model", 0, 1)
    tagger = load_tagger(reference)
    folder = build_folder(build, tagger.name) / DIAGNOSIS
    inputs, model = tagger.config.inputs, single_output(tagger)
    if not isinstance(inputs, Inputs) or model is None:
        raise UserError(
            f"{reference}: diagnose is for taggers, from particles of jets to one vector of logits"
        )
    particles, classes = tagger.shape[0], model.output_shape[-1]
    loaded = _load(data, particles)
    loaded.require_fit(inputs, classes, tagger.files[0])
    jets = loaded.test
    progress("accuracy by order", 0, 1)
    orders = (inputs.order, *(o for o in ORDERS if o != inputs.order))
    if jets.features != FEATURES:  # points have no other order
        orders = orders[:1]
    everything = np.concatenate([_prepared(jets, particles, inputs, order) for order in orders])
    best = scores(predict(model, everything)).argmax(axis=-1)
    right = best.reshape(len(orders), len(jets)) == jets.labels
    tally = Tally()
    graph = convert(tagger.quantized, inputs.container, tagger.name, folder).graph
    for first in range(0, len(jets), BATCH):
        progress("values of every tensor", first, len(jets))
        part = everything[first : min(first + BATCH, len(jets))].astype(np.float64)
        for i, feature in enumerate(inputs.features):
            tally.add_values(f"input.{jets.features[i]}", feature.type, part[..., i])
        graph.run([part], tally.observer)
    result = Diagnosis(
        model=tagger.name,
        jets=len(jets),
        configured_order=inputs.order,
        orders=[_compared(order, right[0], right[i]) for i, order in enumerate(orders)],
        heads=tally.heads(),
        tensors=tally.tensors(),
        tables=tally.tables(),
        warnings=[],
    )
    result.warnings = [*loaded.notes, *warnings_of(result)]
    with changing(folder.parent):
        with replacing(folder / "diagnose.json") as partial:
            partial.write_text(result.model_dump_json(indent=1) + "\n")
        with replacing(folder / "diagnose.png") as partial:
            plot(result, partial)
    return result


def _load(data: Path | None, particles: int) -> DataSet:
    if data is not None:
        loaded = load_data(data, particles)
    else:
        sample = JetSet.read(SAMPLE)
        loaded = DataSet("shipped jets (no --data was given)", sample, sample, sample, ())
    return loaded


def _prepared(jets: JetSet, particles: int, inputs: Inputs, order: Order) -> NDArray[np.float32]:
    return prepare(jets.constituents, particles, inputs.model_copy(update={"order": order}))


def _compared(order: str, configured: NDArray[np.bool_], right: NDArray[np.bool_]) -> OrderAccuracy:
    """The two are decided on the same jets: only those decided apart tell them apart."""
    return OrderAccuracy(
        order=order,
        accuracy=float(right.mean()),
        difference=float(right.mean() - configured.mean()),
        error=float(np.sqrt((right != configured).sum()) / len(right)),
    )


def warnings_of(diagnosis: Diagnosis) -> list[str]:
    """A line for each sign of failure."""
    lines = []
    for other in diagnosis.orders[1:]:
        change = f"by {other.difference:+.2%} +- {other.error:.2%}"
        if other.difference > SIGMAS * other.error:
            lines.append(
                f"order {other.order} is better than the configured {diagnosis.configured_order} "
                f"{change}: the model was trained on jets in another order"
            )
        elif other.order == "shuffled" and other.difference > -SIGMAS * other.error:
            lines.append(
                f"shuffled particles change the accuracy {change}: the partitions mean nothing to "
                "the model"
            )
    for head in diagnosis.heads:
        name, most = f"{head.layer}, head {head.head}", max(head.weights)
        if len(head.weights) == 1:
            continue
        if most >= ONE_PARTITION:
            where = head.weights.index(most)
            lines.append(f"{name} ignores all partitions but {where} ({most:.0%} of its weight)")
        elif head.spread < UNIFORM:
            lines.append(f"{name} is uniform (weights differ by {head.spread:.3f} on average)")
    for tensor in diagnosis.tensors:
        name, share = f"{tensor.name} ({tensor.type})", tensor.overflowed or 0.0
        wraps = "AP_SAT" not in tensor.type
        if share and wraps:
            lines.append(f"{name} wraps around in {share:.3%} of its values; give it more bits")
        elif share > CLIPPED:
            lines.append(f"{name} saturates in {share:.1%} of its values; give it integer bits")
        if tensor.constant:
            lines.append(f"{name} has always the same value; nothing depends on it")
        elif tensor.unused_high_bits:
            lines.append(f"{name} never uses its {tensor.unused_high_bits} highest bits")
    return lines


def plot(diagnosis: Diagnosis, path: Path) -> None:
    """Accuracy by order, attention of the heads, saturation of the tensors, as one picture."""
    height = 1.5 + 0.22 * max(len(diagnosis.tensors), 12)
    figure = Figure(figsize=(15, height), layout="constrained")
    axes = figure.subplots(1, 3)
    orders = diagnosis.orders
    axes[0].barh(
        [o.order for o in orders], [o.accuracy for o in orders], xerr=[o.error for o in orders]
    )
    axes[0].set_xlabel("accuracy\n(error of the difference to the configured order)")
    if diagnosis.heads:
        image = axes[1].imshow(
            [h.weights for h in diagnosis.heads], vmin=0, vmax=1, aspect="auto", cmap="viridis"
        )
        axes[1].set_yticks(
            range(len(diagnosis.heads)), [f"{h.layer} {h.head}" for h in diagnosis.heads]
        )
        figure.colorbar(image, ax=axes[1])
    axes[1].set_xlabel("partition; mean attention weight")
    tensors = diagnosis.tensors
    axes[2].barh([t.name for t in tensors], [100 * (t.overflowed or 0) for t in tensors])
    axes[2].set_xlabel("values changed by the type's limits [%]")
    for axis in (axes[0], axes[2]):
        axis.invert_yaxis()
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
