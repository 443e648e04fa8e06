"""Float variants of SAL-T, and JEDI-linear as a rival, without a teacher: the table in README.md.

Run: python variants.py NAME --jets FOLDER
Each variant of SAL-T is trained from two seeds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from limits import CLASSES
from model import Config, Weights
from train import (
    EVALUATED,
    Jets,
    adam,
    cosine,
    cross_entropy,
    jets_of,
    percent,
    say,
    train_float,
)


def variant(width: int, convolution: str, block: str, head: str, hidden: int = 0) -> Config:
    """`hidden` of the feed-forward network, 0: as wide as the model."""
    return Config(
        width=width,
        feed_forward=hidden or width,
        convolution=convolution,
        block=block,
        head=head,
    )


VARIANTS = {
    "queries_sequential_mlp_32": variant(32, "queries", "sequential", "mlp"),
    "kernel_sequential_mlp_32": variant(32, "kernel", "sequential", "mlp"),
    "queries_parallel_mlp_32": variant(32, "queries", "parallel", "mlp"),
    "queries_sequential_linear_32": variant(32, "queries", "sequential", "linear"),
    "queries_parallel_linear_32": variant(32, "queries", "parallel", "linear"),
    "queries_parallel_linear_48": variant(48, "queries", "parallel", "linear", hidden=64),
    "queries_parallel_linear_16": variant(16, "queries", "parallel", "linear"),
}

CHANNELS, BLOCKS, TAIL = 64, 2, (32, 16, CLASSES)
"""Of JEDI-linear: columns, interaction blocks, and the layers after the mean over particles."""


def jedi_weights(key: Array) -> Weights:
    """Float weights of JEDI-linear."""
    keys = iter(jax.random.split(key, 20))

    def glorot(inputs: int, outputs: int) -> Array:
        limit = math.sqrt(6 / (inputs + outputs))
        return jax.random.uniform(next(keys), (inputs, outputs), minval=-limit, maxval=limit)

    weights = {"embed.kernel": glorot(3, CHANNELS), "embed.bias": jnp.zeros(CHANNELS)}
    for i, (inputs, outputs) in enumerate(zip((CHANNELS, *TAIL[:-1]), TAIL, strict=True)):
        weights[f"tail{i}.kernel"] = glorot(inputs, outputs)
        weights[f"tail{i}.bias"] = jnp.zeros(outputs)
    for i in range(BLOCKS):
        weights[f"own{i}.kernel"] = glorot(CHANNELS, CHANNELS)
        weights[f"mean{i}.kernel"] = glorot(CHANNELS, CHANNELS)
        weights[f"own{i}.bias"] = jnp.zeros(CHANNELS)
    return weights


def jedi(weights: Weights, x: Array) -> Array:
    """Inputs (batch, N, 3) to logits (batch, 5): every particle meets the mean of all.

    h' = relu(h W + mean(h) U + b), twice; no batch normalization. arXiv:2508.15468.
    """
    h = jax.nn.relu(x @ weights["embed.kernel"] + weights["embed.bias"])
    for i in range(BLOCKS):
        mean = h.mean(1, keepdims=True) @ weights[f"mean{i}.kernel"]
        h = jax.nn.relu(h @ weights[f"own{i}.kernel"] + mean + weights[f"own{i}.bias"])
    y = h.mean(1)
    for i in range(len(TAIL)):
        y = y @ weights[f"tail{i}.kernel"] + weights[f"tail{i}.bias"]
        y = jax.nn.relu(y) if i < len(TAIL) - 1 else y
    return y


def jedi_epoch(batch: int) -> Callable[..., Any]:
    """One epoch, compiled: (state, jets, key, learning rates (steps,)) to (state, mean loss)."""

    def loss(weights: Weights, x: Array, labels: Array) -> Array:
        return cross_entropy(jedi(weights, x), labels)

    @jax.jit
    def epoch(state: Any, jets: Jets, key: Array, rates: Array) -> tuple[Any, Array]:
        steps = len(rates)
        order = jax.random.permutation(key, len(jets[0]))[: steps * batch]

        def body(state: Any, at: tuple[Array, Array]) -> tuple[Any, Array]:
            rows, rate = at
            old, first, second, average, step = state
            value, gradients = jax.value_and_grad(loss)(old, jets[0][rows], jets[1][rows])
            step = step + 1
            weights, firsts, seconds = {}, {}, {}
            for name, weight in old.items():
                change, firsts[name], seconds[name] = adam(
                    gradients[name], first[name], second[name], step, rate
                )
                weights[name] = weight + change
            average = {n: average[n] * 0.999 + 0.001 * weights[n] for n in weights}
            return (weights, firsts, seconds, average, step), value

        state, losses = lax.scan(body, state, (order.reshape(steps, batch), rates))
        return state, losses.mean()

    return epoch


def train_jedi(train: Jets, validation: Jets, batch: int, epochs: int, key: Array) -> None:
    """Prints the accuracy of the averaged weights. The learning rate falls from 3e-3 to 1e-5."""
    weights = jedi_weights(jax.random.PRNGKey(3))
    zeros = {n: jnp.zeros_like(w) for n, w in weights.items()}
    state = weights, zeros, zeros, weights, jnp.float32(0)
    run, steps = jedi_epoch(batch), len(train[0]) // batch
    rates = cosine(np.linspace(0, 1, epochs * steps), 3e-3, 1e-5).reshape(epochs, steps)
    for epoch in range(epochs):
        key, now = jax.random.split(key)
        state, loss = run(state, train, now, jnp.asarray(rates[epoch], jnp.float32))
    x, labels = (v[: len(v) // EVALUATED * EVALUATED] for v in validation)
    logits = [jax.jit(jedi)(state[3], part) for part in jnp.split(x, len(x) // EVALUATED)]
    accuracy = (jnp.concatenate(logits).argmax(-1) == labels).mean()
    say("JEDI-linear float accuracy", percent(np.array(accuracy)), "ce", round(float(loss), 4))


def main() -> None:
    """One variant, or JEDI-linear."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[*VARIANTS, "jedi_linear"])
    parser.add_argument("--jets", type=Path, required=True, help="folder that jets.py wrote to")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1024)
    a = parser.parse_args()
    train, validation = jets_of(a.jets, 32)
    key = jax.random.PRNGKey(7)
    if a.name == "jedi_linear":
        train_jedi(train, validation, a.batch, a.epochs, key)
    else:
        config = VARIANTS[a.name]
        train_float(config, (1, 2), train, validation, None, a.epochs, a.batch, key, a.name)


if __name__ == "__main__":
    main()
