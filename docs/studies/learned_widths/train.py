"""Trains SAL-T with learned widths: several members side by side, each to its own target in LUTs.

First the float model, then weights and widths together while the predicted LUTs fall to the target.
The commands of the run that gave the weights are in README.md. Writes FOLDER/<name>.npz (arrays of
`model.Weights` with the members in front, and `_cost`, `_acc`, `_raw`, `_epoch`; float weights as
`_F:<weight>`) and FOLDER/<name>.json, accuracy and LUTs on the way.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jets import load
from limits import (
    ACTIVATIONS,
    FRACTION_MIN,
    INTEGER_MIN,
    WEIGHT_FRACTION,
    WEIGHT_MAX,
    is_matrix,
    is_width,
)
from model import (
    Config,
    Float,
    Learned,
    Weights,
    forward,
    initial_weights,
    predicted_lut,
    with_widths,
)
from numpy.typing import NDArray

Jets = tuple[Array, Array]
"""Inputs (jets, N, 3) and labels (jets,)."""

State = dict[str, Any]
"""Of training, every array with the members in front: weights, their averages, both moments of
Adam, steps, the logarithm of the price of a LUT, and by how much the last step was too dear."""

Rates = NDArray[np.float64]

TEMPERATURE = 2.0
LOG_PRICE_MIN, LOG_PRICE_MAX = -25.0, -8.0
EVALUATED = 4096
"""Jets a batch in evaluation; those of an incomplete last one are left out."""

STARTED = time.time()


def say(*words: object) -> None:
    """One line, after the seconds since the start."""
    sys.stdout.write(f"[{time.time() - STARTED:6.1f}] {' '.join(map(str, words))}\n")
    sys.stdout.flush()


def adam(
    gradient: Array, first: Array, second: Array, step: Array, rate: Array
) -> tuple[Array, Array, Array]:
    """What to add to a weight, and both moments."""
    first = 0.9 * first + 0.1 * gradient
    second = 0.999 * second + 0.001 * gradient * gradient
    root = jnp.sqrt(second / (1 - 0.999**step)) + 1e-7
    return -rate * (first / (1 - 0.9**step)) / root, first, second


def cosine(at: Rates, high: float, low: float) -> Rates:
    """From `high` at 0 to `low` at 1."""
    return low + (high - low) * 0.5 * (1 + np.cos(np.pi * at))


def progress(epoch: int, epochs: int, steps: int) -> Rates:
    """0 ... 1 of the whole training, for every step of this epoch."""
    return (epoch + np.arange(steps) / steps) / epochs


def cross_entropy(logits: Array, labels: Array) -> Array:
    """With the labels, mean of a batch."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()


def distillation(logits: Array, teacher: Array) -> Array:
    """Cross-entropy with the teacher's probabilities at the temperature, times its square."""
    soft = jax.nn.softmax(teacher / TEMPERATURE)
    log_student = jax.nn.log_softmax(logits / TEMPERATURE)
    return -(soft * log_student).sum(-1).mean() * TEMPERATURE * TEMPERATURE


def start(weights: Weights, log_price: float = -18.0) -> State:
    """Training of `weights` (members, ...) from its beginning."""
    members = len(next(iter(weights.values())))
    return {
        "weights": {n: jnp.array(w) for n, w in weights.items()},
        "average": {n: jnp.array(w) for n, w in weights.items()},
        "first": {n: jnp.zeros_like(w) for n, w in weights.items()},
        "second": {n: jnp.zeros_like(w) for n, w in weights.items()},
        "steps": jnp.zeros(members),
        "log_price": jnp.full((members,), log_price),
        "excess": jnp.zeros(members),
    }


def bounded(name: str, weight: Array) -> Array:
    """Weights and their fraction bits after a step."""
    if is_matrix(name):
        return jnp.clip(weight, -WEIGHT_MAX, WEIGHT_MAX)
    if name.startswith("f:"):
        return jnp.clip(weight, -2.4, WEIGHT_FRACTION + 0.4)
    return weight


def bounded_widths(weights: Weights) -> Weights:
    """Widths of activations, where a step moved them to no use: the scalar stays within its
    limits, scalar and map within 0.4 of them."""
    widths = {}
    for name, limits in ACTIVATIONS.items():
        for kind, low, high in (
            ("i", INTEGER_MIN, limits.integer),
            ("f", FRACTION_MIN, limits.fraction),
        ):
            common = jnp.clip(weights[f"{kind}s:{name}"], low, high)
            element = weights[f"{kind}m:{name}"]
            element = jnp.clip(element, low - 0.4 - common, high + 0.4 - common)
            widths |= {f"{kind}s:{name}": common, f"{kind}m:{name}": element}
    return widths


def epoch_of(config: Config, learned: bool, batch: int, share: float) -> Callable[..., Any]:
    """One epoch of all members, compiled.

    (state, inputs, labels, teacher's logits or None, key, learning rates (steps,), those of widths
    (steps,), goals in LUT (steps, members)) to (state, mean cross-entropy (members,), LUTs after
    the last step (members,)). The loss of a member is

        (1 - share) CE + share distillation + price LUT + 1e-8 (sum of all widths).

    The price rises while LUTs are above the goal, and falls below it: its logarithm integrates the
    logarithm of their ratio, and adds 3 times the last one. All members see the same batches.
    """

    def loss(
        weights: Weights, x: Array, labels: Array, teacher: Array | None, price: Array
    ) -> tuple[Array, tuple[Array, Array]]:
        logits = forward((Learned if learned else Float)(weights), x, config)
        ce = cross_entropy(logits, labels)
        if teacher is not None:
            ce = (1 - share) * ce + share * distillation(logits, teacher)
        if not learned:
            return ce, (ce, jnp.float32(0))
        lut, _ = predicted_lut(weights, config)
        widths = sum(jnp.sum(w) for name, w in weights.items() if is_width(name))
        return ce + price * lut + 1e-8 * widths, (ce, lut)

    def step(
        state: State,
        x: Array,
        labels: Array,
        teacher: Array | None,
        rate: Array,
        width_rate: Array,
        goal: Array,
    ) -> tuple[State, tuple[Array, Array]]:
        old, log_price = state["weights"], state["log_price"]
        price = jnp.exp(jnp.clip(log_price + state["excess"] * 3.0, LOG_PRICE_MIN, LOG_PRICE_MAX))
        slope = jax.value_and_grad(loss, has_aux=True)
        (_, (ce, lut)), gradients = slope(old, x, labels, teacher, price)
        gradients = {name: jnp.nan_to_num(g) for name, g in gradients.items()}
        norm = jnp.sqrt(sum(jnp.sum(g * g) for n, g in gradients.items() if not is_width(n)))
        clip = jnp.minimum(1.0, 1.0 / (norm + 1e-9))
        steps = state["steps"] + 1
        keep = jnp.minimum(0.999, steps / (steps + 3.0))
        weights, average, first, second = {}, {}, {}, {}
        for name, weight in old.items():
            wide = is_width(name)
            change, first[name], second[name] = adam(
                gradients[name] * (1.0 if wide else clip),
                state["first"][name],
                state["second"][name],
                steps,
                width_rate if wide else rate,
            )
            new = weights[name] = bounded(name, weight + change)
            average[name] = new if wide else keep * state["average"][name] + (1 - keep) * new
        excess = jnp.float32(0)
        if learned:
            widths = bounded_widths(weights)
            weights, average = weights | widths, average | widths
            excess = jnp.log(jnp.maximum(lut, 1.0)) - jnp.log(goal)
        log_price = log_price + 0.01 * jnp.clip(excess * 10, -1, 1)
        return {
            "weights": weights,
            "average": average,
            "first": first,
            "second": second,
            "steps": steps,
            "log_price": jnp.clip(log_price, LOG_PRICE_MIN, LOG_PRICE_MAX),
            "excess": jnp.clip(excess, -0.5, 0.5),
        }, (ce, lut)

    members = jax.vmap(step, in_axes=(0, None, None, None, None, None, 0))

    def epoch(
        state: State,
        x: Array,
        labels: Array,
        teacher: Array | None,
        key: Array,
        rates: Array,
        width_rates: Array,
        goals: Array,
    ) -> tuple[State, Array, Array]:
        steps = len(rates)
        order = jax.random.permutation(key, len(x))[: steps * batch].reshape(steps, batch)

        def body(state: State, at: tuple[Array, ...]) -> tuple[State, tuple[Array, Array]]:
            rows, rate, width_rate, goal = at
            soft = None if teacher is None else teacher[rows]
            return members(state, x[rows], labels[rows], soft, rate, width_rate, goal)

        state, (ce, lut) = lax.scan(body, state, (order, rates, width_rates, goals))
        return state, ce.mean(0), lut[-1]

    return jax.jit(epoch, donate_argnums=0)


def accuracy_of(config: Config, learned: bool) -> Callable[[Weights, Jets], NDArray[np.float32]]:
    """(weights (members, ...), jets) to the accuracy (members,), compiled."""

    def predict(weights: Weights, x: Array) -> Array:
        return forward((Learned if learned else Float)(weights), x, config).argmax(-1)

    members = jax.vmap(predict, in_axes=(0, None))

    @jax.jit
    def accuracy(weights: Weights, x: Array, labels: Array) -> Array:
        batches = len(x) // EVALUATED
        x, labels = (v[: batches * EVALUATED] for v in (x, labels))

        def body(_: None, at: Jets) -> tuple[None, Array]:
            return None, (members(weights, at[0]) == at[1][None]).mean(1)

        split = (batches, EVALUATED)
        at = x.reshape(*split, *x.shape[1:]), labels.reshape(split)
        return lax.scan(body, None, at)[1].mean(0)

    return lambda weights, jets: np.array(accuracy(weights, *jets))


def percent(accuracy: NDArray[np.float32]) -> NDArray[np.float32]:
    """To 0.01."""
    return np.round(accuracy * 100, 2)


def train_float(
    config: Config,
    seeds: Sequence[int],
    train: Jets,
    validation: Jets,
    teacher: Array | None,
    epochs: int,
    batch: int,
    key: Array,
    name: str,
) -> tuple[Weights, NDArray[np.float32]]:
    """Averaged weights (members, ...) and their accuracy, one member for each seed.

    The learning rate falls from 3e-3 as a cosine to a 300th, after one epoch of rising.
    """
    keys = jnp.stack([jax.random.PRNGKey(seed) for seed in seeds])
    state = start(jax.vmap(lambda k: initial_weights(k, config))(keys))
    steps = len(train[0]) // batch
    rates = cosine(np.linspace(0, 1, epochs * steps), 3e-3, 3e-3 / 300).reshape(epochs, steps)
    rates[0] *= np.linspace(0.1, 1, steps)
    run = epoch_of(config, False, batch, share=0.5)
    unused = jnp.zeros(steps), jnp.ones((steps, len(seeds)))
    for epoch in range(epochs):
        key, now = jax.random.split(key)
        rate = jnp.asarray(rates[epoch], jnp.float32)
        state, ce, _ = run(state, *train, teacher, now, rate, *unused)
        if epoch in (0, 1, epochs // 2):
            say(name, "float epoch", epoch, np.round(np.array(ce), 4))
    accuracy = accuracy_of(config, False)(state["average"], validation)
    say(name, "float accuracy", percent(accuracy), "ce", np.round(np.array(ce), 4))
    return state["average"], accuracy


def on_host(weights: Weights) -> dict[str, NDArray[np.float32]]:
    """As NumPy arrays."""
    return {name: np.array(weight) for name, weight in weights.items()}


class Clock:
    """How many epochs fit into the time: asked after every epoch, answers after some."""

    def __init__(self, seconds: float):
        self.end, self.mark = time.time() + seconds, (0, 0.0)

    def epochs(self, epoch: int, total: int) -> int:
        """Of the whole training, `total` so far."""
        now = time.time()
        if epoch == 3:  # compiled by now
            self.mark = epoch, now
        if not (epoch == 6 or epoch % 20 == 0) or epoch >= 0.8 * total:
            return total
        each = (now - self.mark[1]) / (epoch - self.mark[0])
        self.mark = epoch, now
        total = max(epoch + 6, int(epoch + (self.end - now) / (each * 1.04)))
        say("seconds an epoch", round(each, 3), "epochs", total)
        return total


def train_widths(
    config: Config,
    weights: Weights,
    train: Jets,
    validation: Jets,
    teacher: Array,
    targets: Sequence[float],
    epochs: int,
    seconds: float,
    batch: int,
    key: Array,
    out: Path,
    extra: dict[str, NDArray[np.float32]],
) -> None:
    """Weights and widths of all members, to `targets` in LUT; the results go to `out`.npz.

    LUTs fall by the same factor in every step of the first 70 % of the epochs, and are held there;
    widths move until 88 %. The learning rate falls from 2e-3 as a cosine to a 200th. seconds: how
    long all may take, 0 for exactly `epochs`.
    """
    steps = len(train[0]) // batch
    run, accuracy_at = epoch_of(config, True, batch, share=0.6), accuracy_of(config, True)
    lut_of = jax.jit(jax.vmap(lambda w: predicted_lut(w, config)))
    state = start(weights)
    first, last = np.array(lut_of(weights)[0]), np.array(targets)
    say("cost at the start", np.round(first / 1e3), "targets", last / 1e3)
    clock, history = Clock(seconds), []
    epoch, every = 0, 5
    while epoch < epochs:
        at = progress(epoch, epochs, steps)
        rates = cosine(at, 2e-3, 2e-3 / 200)
        width_rates = np.where(at < 0.75, 3e-3, np.where(at < 0.88, 1e-3, 0.0))
        fallen = np.clip(at / 0.7, 0, 1)[:, None]
        goals = np.exp(np.log(first)[None] * (1 - fallen) + np.log(last)[None] * fallen)
        key, now = jax.random.split(key)
        plan = (jnp.asarray(v, jnp.float32) for v in (rates, width_rates, goals))
        state, ce, lut = run(state, *train, teacher, now, *plan)
        epoch += 1
        if seconds:
            jax.block_until_ready(state)
            epochs = clock.epochs(epoch, epochs)
        if epoch % every and epoch < epochs:
            continue
        lut = np.array(lut)
        accuracy = accuracy_at(state["average"], validation)
        raw = accuracy_at(state["weights"], validation)
        history.append([epoch, lut.tolist(), accuracy.tolist(), raw.tolist()])
        out.with_suffix(".json").write_text(json.dumps(history))
        if epoch % (every * 2) == 0 or epoch >= epochs - every:
            losses, thousands = np.round(np.array(ce), 3), np.round(lut / 1e3, 1)
            log_price = np.round(np.array(state["log_price"]), 1)
            say(
                f"epoch {epoch}/{epochs} ce",
                losses,
                "kLUT",
                thousands,
                "acc",
                percent(accuracy),
                "raw",
                percent(raw),
                "logb",
                log_price,
            )
        if epoch >= 0.7 * epochs:
            figures = {"_cost": lut, "_acc": accuracy, "_raw": raw, "_epoch": np.array(epoch)}
            np.savez_compressed(
                out.with_suffix(".npz"), **on_host(state["average"]), **figures, **extra
            )
    average = state["average"]
    parts = lut_of(average)[1]
    say("parts kLUT", {n: np.round(np.array(v) / 1e3, 1).tolist() for n, v in parts.items()})
    without = average | {"output.kernel": jnp.zeros_like(average["output.kernel"])}
    say("without attention", percent(accuracy_at(without, validation)))


def jets_of(folder: Path, particles: int) -> tuple[Jets, Jets]:
    """Training and validation jets on the device."""
    train, validation = (load(folder, split, particles) for split in ("train", "validation"))
    return tuple(map(jnp.asarray, train)), tuple(map(jnp.asarray, validation))


def main() -> None:
    """The float model, then its widths."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the files written")
    parser.add_argument("--jets", type=Path, required=True, help="folder that jets.py wrote to")
    parser.add_argument("--teacher", type=Path, required=True, help="npz that teacher.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--particles", type=int, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True, help="one for each member")
    parser.add_argument("--targets", type=float, nargs="+", required=True, help="in LUT")
    parser.add_argument("--width", type=int, default=32, help="and feed_forward")
    parser.add_argument("--float-epochs", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=400, help="at first")
    parser.add_argument("--seconds", type=float, default=0, help="for all; 0: just the epochs")
    parser.add_argument("--batch", type=int, default=1024, help="of the float model; then twice")
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    say(jax.devices())
    teacher = jnp.asarray(np.load(a.teacher)["train"].astype(np.float32))
    key = jax.random.PRNGKey(11)
    config = Config(particles=a.particles, width=a.width, feed_forward=a.width)
    train, validation = jets_of(a.jets, a.particles)
    weights, accuracy = train_float(
        config, a.seeds, train, validation, teacher, a.float_epochs, a.batch, key, a.name
    )
    extra = {f"_F:{n}": w for n, w in on_host(weights).items()} | {"_float_acc": accuracy}
    weights = with_widths(weights, config, train[0][:8192])
    left = a.seconds and a.seconds - (time.time() - STARTED)
    train_widths(
        config,
        weights,
        train,
        validation,
        teacher,
        a.targets,
        a.epochs,
        left,
        2 * a.batch,
        key,
        a.out / a.name,
        extra,
    )
    say("done")


if __name__ == "__main__":
    main()
